"""What the supervised child process runs: stages, one after the other, as they are asked for on standard input.

Requests and answers are JSON, one a line. A request names a function and its arguments, or functions that are to come; an
answer is progress, what the function returned or an error. Whatever else is written to standard output goes to the log.

When its parent ends, standard input does too: the child then does what it does on SIGTERM, which is to save and to leave.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TextIO, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

from pipelines.allocator import keep_freed_memory
from pipelines.models.kept import keeping_classifier
from pipelines.progress import Progress
from pipelines.quick_imports import quick_imports
from tasks.carried_errors import describe_error
from tasks.work_locks import close_locks, receive_locks

SECONDS_TO_LEAVE = 20.0  # between two steps of training there are at most a few


def read_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as the function's annotations want them, from what JSON made of them.

    Raises:
        pydantic.ValidationError: one does not fit, which only a parent of another version can cause.
    """
    hints = get_type_hints(function)
    return {name: TypeAdapter(hints[name]).validate_python(value) for name, value in arguments.items()}


def _serve(
    requests: queue.SimpleQueue[dict[str, Any] | None], locks: socket.socket, answer: Callable[[dict[str, Any]], None]
) -> None:
    """Does what is asked for, each time under the locks that come with it, until there is nothing more to come."""

    def report(progress: Progress) -> None:
        answer({"progress": asdict(progress)})

    while (request := requests.get()) is not None:
        held = receive_locks(locks, request["locks"])
        os.environ.update(request.get("environment", {}))
        if "ahead" in request:
            with quick_imports():
                for name in request["ahead"]:
                    resolve_name(name)
            close_locks(held)
            continue
        try:
            function = resolve_name(request["function"])
            made = function(**read_arguments(function, request["arguments"]), report=report)
        except Exception as error:  # noqa: BLE001 (the parent raises it again)
            said: dict[str, Any] = {"error": describe_error(error)}
        else:
            kind = f"{type(made).__module__}:{type(made).__qualname__}" if isinstance(made, BaseModel) else None
            said = {"kind": kind, "made": to_jsonable_python(made, round_trip=True)}
        close_locks(held)  # who is interrupted keeps them to its end, and to that of all that it started
        answer(said)


def _listen(
    source: TextIO, requests: queue.SimpleQueue[dict[str, Any] | None], left_alone: threading.Event, temporary: Path
) -> None:
    """Hands on what comes in; when the parent has gone, makes sure that this process goes too."""
    try:
        for line in source:
            requests.put(json.loads(line))  # the last one may be half a line
    finally:
        left_alone.set()
        requests.put(None)  # enough for an idle child
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(SECONDS_TO_LEAVE)
        _end_all(temporary)


def _end_all(temporary: Path) -> None:
    """Ends this process and what it started, and takes its temporary files along: the parent may not be there to do so."""
    shutil.rmtree(temporary, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Entry point of the child: the last arguments are its folder for temporary files and the socket that locks come by."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, which training puts off to the end of a step
    keep_freed_memory()  # before anything starts threads
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    temporary, locks = Path(sys.argv[-2]), socket.socket(fileno=int(sys.argv[-1]))
    answering = threading.Lock()

    def answer(content: dict[str, Any]) -> None:
        with answering, suppress(BrokenPipeError):  # the parent has gone: the listener sees to what follows from that
            answers.write(json.dumps(content) + "\n")
            answers.flush()

    requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    left_alone = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin, requests, left_alone, temporary), daemon=True).start()
    status = 0
    try:
        with keeping_classifier():
            _serve(requests, locks, answer)
    except KeyboardInterrupt:
        status = 128 + signal.SIGTERM
    except BaseException:  # noqa: BLE001 (the log tells what it was)
        traceback.print_exc()
        status = 1
    finally:
        with suppress(KeyboardInterrupt, OSError):  # the listener's, where there was nothing to do; a full disk under the log
            sys.stderr.flush()
        with suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the listener's may be still to come
        if left_alone.is_set():
            _end_all(temporary)
        os._exit(status)  # TensorFlow takes a second to tidy up what the system frees at once
