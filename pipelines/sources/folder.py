"""Class folders as a source, with the semantics of `keras.utils.image_dataset_from_directory`.

Classes are the sub-folders in sorted order; images are found at any depth below them; folders whose name starts with a
dot are no classes; links to folders are not followed below a class (so a link loop can't hang), links to files are. WebP
is read besides Keras's formats.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config import SPLITS, SplitConfig
from pipelines.errors import InputError, SourceChangedError
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.sources.threads import map_chunks

if TYPE_CHECKING:
    from pipelines.sources.states import FileStates  # imports PyArrow, too slow for `--help`

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
SPLIT_SYNONYMS = frozenset({*SPLIT_FOLDERS, "training", "valid", "dev", "eval", "evaluation", "testing", "holdout"})


@dataclass(frozen=True)
class FoundFile:
    """One image file of a source.

    Attributes:
        path: relative to the source, with forward slashes; bytes that are not UTF-8 are escaped.
        label: its class.
        split: the split folder it lies in, or None where splits are to be drawn.
        size_bytes: as seen by the scan.
        sha256: of its bytes, in hex; None before the digest was taken or where it could not be.
        problem: why it can't be used, or None.
    """

    path: str
    label: str
    split: str | None
    size_bytes: int = 0
    sha256: str | None = None
    problem: str | None = None


def find_images(
    root: Path, *, least_classes: int = 2, parts: Sequence[tuple[Path, str | None]] = ()
) -> tuple[list[str], list[FoundFile]]:
    """Lists the class names and the image files of a folder, without opening any of them.

    Args:
        root: the source.
        least_classes: fewer are refused; a model can't be trained on one class, but judged on it.
        parts: the folders that hold class folders, each with its split; where empty, they are told by their names.

    Returns:
        The classes in label order, and the files in Keras's order (by class, then by path); split folders come one after
        the other, as train, validation, test.

    Raises:
        InputError: the folder is missing, is a file, can't be read, is empty, has too few classes, or mixes split folders
            with others.
    """
    if not root.exists():
        raise InputError(f"`SOURCE` must be an existing folder; {str(root)!r} does not exist")
    if not root.is_dir():
        raise InputError(
            f"`SOURCE` must be a folder with one sub-folder per class, or a .csv or .parquet table; {str(root)!r} is a file"
        )
    parts = parts or _split_folders(root)
    classes: list[str] = sorted({name for folder, _ in parts for name in _sub_folders(folder)})
    if not classes:
        raise InputError(f"`SOURCE` must hold one sub-folder per class; {str(root)!r} has no sub-folders")
    check_least_classes(classes, root, least_classes=least_classes)
    files: list[FoundFile] = []
    for folder, split in parts:
        for label in classes:
            place = (folder / label).relative_to(root).as_posix()
            files += [_found(f"{place}/{name}", label, split) for name in _image_names(folder / label)]
    if not files:
        raise InputError(f"`SOURCE` must hold images ({', '.join(EXTENSIONS)}); {str(root)!r} has none")
    return classes, files


def check_least_classes(classes: Sequence[str], source: object, *, least_classes: int) -> None:
    """Checks that a source has as many classes as are needed.

    Raises:
        InputError: naming the only one that it has.
    """
    if len(classes) < least_classes:
        raise InputError(f"`SOURCE` must hold at least two classes; {str(source)!r} has only {classes[0]!r}")


def check_class_counts(classes: Sequence[str], files: Iterable[FoundFile], *, fractions: SplitConfig) -> None:
    """Checks that each class has an image for each split.

    Raises:
        InputError: naming each class that has too few, with what it has and what it needs.
    """
    usable = [file for file in files if file.problem is None]
    given = {file.split for file in usable}
    drawn, stays = splits_to_draw(given, fractions=fractions), train_stays(given)
    counts = Counter((file.label, file.split) for file in usable)
    where = " with an empty split" if stays else " in `train`" if given - {None} else ""
    problems = []
    for label in classes:
        left = counts[label, None] + (0 if stays else counts[label, "train"])
        needed = [split for split in drawn if split != "train" or not (stays and counts[label, "train"])]
        if left < len(needed):
            problems.append(f"class {label!r} has {left}{where} and needs {len(needed)} ({', '.join(needed)})")
        others = sorted(split for split in given - {None, "train"} if split and not counts[label, split])
        problems += [f"class {label!r} has none in `{split}`" for split in others]
    if problems:
        hint = " (images that say `train` stay there)" if stays else ""
        raise InputError(f"each class needs at least one usable image per split{hint}: {'; '.join(problems)}")


def train_stays(given: Collection[str | None]) -> bool:
    """Whether images that say `train` are training images for good: a table may say so of some and leave others open."""
    return {None, "train"} <= set(given)


def splits_to_draw(given: Iterable[str | None], *, fractions: SplitConfig) -> list[str]:
    """The splits that images without a split of their own, or in the `train` folder, are shared out among.

    Without split folders these are all whose fraction is not 0. With them `train` stays as it is, but gives up a validation
    split where there is no such folder, since early stopping must look at images that are neither trained nor tested on.
    """
    present = {split for split in given if split}
    if not present - {"train"}:
        return [split for split in SPLITS if getattr(fractions, split) > 0]
    return ["train"] if "validation" in present else ["train", "validation"]


def digest_files(
    root: Path, files: Sequence[FoundFile], *, states: FileStates | None = None, report: Report = ignore_progress
) -> list[FoundFile]:
    """Notes the size and SHA-256 of each file, or why it can't be read. The order is kept.

    Files are read once, in parallel; those that `states` knows as unchanged are not read, and the others are added to it.
    """
    place = f"{root}/"
    # Without threads: they would spend more time on taking turns than the calls take.
    digested = [_recall(place, file, states) for file in files]
    unread = [number for number, file in enumerate(digested) if file is None]
    done = len(files) - len(unread)
    report(Progress(done, len(files), "files"))
    for chunk in map_chunks(lambda number: (number, _digest(place, files[number], states)), unread):
        for number, file in chunk:
            digested[number] = file
        done += len(chunk)
        report(Progress(done, len(files), "files"))
    return [file for file in digested if file is not None]


def read_unchanged(root: Path, path: str, sha256: str | None) -> bytes:
    """The bytes of a file that a scan saw.

    Raises:
        SourceChangedError: they are no longer those that the scan took the digest of.
    """
    try:
        contents = (root / path).read_bytes()
    except OSError as error:
        raise SourceChangedError(f"{path!r} can no longer be read ({error.strerror}); run the same command again") from error
    if hashlib.sha256(contents).hexdigest() != sha256:
        raise SourceChangedError(
            f"{path!r} changed while the run was reading it, or before with its size and time kept; run the same command again"
            " (`imagemill train`: with --verify, which reads every file)"
        )
    return contents


def _split_folders(root: Path) -> list[tuple[Path, str | None]]:
    """The folders that hold class folders, each with its split; just the root where there are no split folders."""
    names = _sub_folders(root)
    split_names = [name for name in names if name in SPLIT_FOLDERS]
    nested = [name for name in split_names if _sub_folders(root / name)]
    others = [name for name in names if name not in SPLIT_FOLDERS]
    if not nested or (others and ("train" not in nested or len(nested) == 1)):
        _check_split_names(root, names)
        return [(root, None)]
    if others:
        raise InputError(
            f"`SOURCE` mixes split folders ({', '.join(nested)}) with others ({', '.join(map(repr, others))});"
            " move one kind away"
        )
    if flat := [name for name in split_names if name not in nested]:
        raise InputError(
            f"`SOURCE` has split folders, and each must hold class folders; {', '.join(flat)} has none (unlabelled images"
            " are for `imagemill predict`)"
        )
    by_split = {SPLIT_FOLDERS[name]: root / name for name in nested}
    if len(by_split) < len(nested):
        raise InputError("`SOURCE` has both `val` and `validation`; keep one of them")
    return [(by_split[split], split) for split in SPLITS if split in by_split]


def _check_split_names(root: Path, names: Sequence[str]) -> None:
    """Refuses folders that are splits under other names: a model would learn to tell one split from another."""
    if len(names) > 1 and all(name.lower() in SPLIT_SYNONYMS and _sub_folders(root / name) for name in names):
        raise InputError(
            f"`SOURCE` has folders that look like splits, not classes ({', '.join(names)});"
            " name them train, validation and test"
        )


def _sub_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))
    except OSError as error:
        raise InputError(f"`SOURCE` can't be listed: {str(folder)!r} ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # `entry.is_dir()` raises for a link to itself.
    return Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()


def image_paths(folder: Path) -> list[Path]:
    """Image files at any depth, folder by folder in sorted order, as Keras walks."""
    return [folder / name for name in _image_names(folder)]


def _image_names(folder: Path) -> Iterator[str]:
    """What `image_paths` gives, relative to the folder: a `Path` for each file would take longer than all the rest."""
    for where, _, names in sorted(os.walk(folder, onerror=_refuse_to_skip), key=lambda entry: entry[0]):
        place = Path(where).relative_to(folder).as_posix()
        prefix = "" if place == "." else f"{place}/"
        yield from (prefix + name for name in sorted(names) if name.lower().endswith(EXTENSIONS))


def _refuse_to_skip(error: OSError) -> None:
    """`os.walk` leaves out folders that it can't list, and with them a part of the data."""
    if isinstance(error, FileNotFoundError):  # a class that a split folder lacks
        return
    raise InputError(f"a folder can't be listed: {error.filename!r} ({error.strerror}); mend or move it") from error


def count_ignored(root: Path) -> dict[str, int]:
    """How many files of a folder are no images by their names, by extension; files whose name starts with a dot aside."""
    names = (name for _, _, files in os.walk(root) for name in files if not name.startswith("."))
    return dict(Counter(Path(name).suffix.lower() for name in names if not name.lower().endswith(EXTENSIONS)))


def printable_path(path: Path) -> str:
    """A path with forward slashes, bytes that are not UTF-8 escaped."""
    return os.fsencode(path.as_posix()).decode("utf-8", errors="backslashreplace")


def _found(path: str, label: str, split: str | None) -> FoundFile:
    try:
        path.encode()
    except UnicodeEncodeError:
        problem = "unreadable: its name is not UTF-8; rename it"
        return FoundFile(printable_path(Path(path)), label, split, problem=problem)
    return FoundFile(path, label, split)


def _recall(place: str, file: FoundFile, states: FileStates | None) -> FoundFile | None:
    """The file with what is known of it; None where it has to be read."""
    if file.problem or states is None:
        return file if file.problem else None
    try:
        status = os.stat(os.path.join(place, file.path))  # noqa: PTH116, PTH118 (a `Path` costs more than the call)
    except OSError:
        return None
    sha256 = states.recall(file.path, status)
    return FoundFile(file.path, file.label, file.split, status.st_size, sha256) if sha256 else None


def _digest(place: str, file: FoundFile, states: FileStates | None) -> FoundFile:
    path = Path(place, file.path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return replace(file, problem="unreadable: not a regular file")
        with path.open("rb", buffering=0) as opened:
            status = os.fstat(opened.fileno())
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        return replace(file, problem=f"unreadable: {error.strerror}")
    if states:
        states.note(file.path, status, sha256)
    return replace(file, size_bytes=status.st_size, sha256=sha256)
