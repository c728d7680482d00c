"""The errors of the domain, and what each means for the exit status of the command.

Grammar of a message: the argument in backticks, the rule, what was received, how to mend it; one line, at most the list of
the things it is about after it.
"""

from __future__ import annotations


class ImagemillError(Exception):
    """Base of all errors that are said in one line, without a traceback."""


class InputError(ImagemillError, ValueError):
    """The request was wrong: a path, a recipe, a data set that can't be used. Exit status 2."""


class RunError(ImagemillError, RuntimeError):
    """The request was right, and the run failed all the same. Exit status 1."""


class WeightsUnavailableError(RunError):
    """Pretrained weights could not be fetched or read."""


class ImageDecodeError(ImagemillError, ValueError):
    """One image could not be turned into pixels; the message is the reason, without the file's name."""


class SourceChangedError(RunError):
    """A file changed or vanished between the scan and the moment its bytes were needed."""


class ParityError(RunError):
    """An exported model does not give the trained model's answers."""


class RegistryError(RunError):
    """The MLflow registry can't be used: it refuses, is of another version, or does not answer."""


class RegistryUnreachableError(RegistryError):
    """The MLflow registry does not answer, or answers that it can't work at the moment."""


def quoted(name: str) -> str:
    """A name in quotes, on one line: what can't be printed is escaped once, also where part of it was escaped already."""
    return repr(name).replace("\\\\", "\\")


def one_line(error: object, limit: int = 250) -> str:
    """The text of anybody's error or warning as one line of at most `limit` characters; its kind where it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
