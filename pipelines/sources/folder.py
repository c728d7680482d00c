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
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.config import SPLITS, SplitConfig
from pipelines.errors import InputError, SourceChangedError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


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
            files += [_found(root, path, label, split) for path in image_paths(folder / label)]
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
    given = {file.split for file in usable if file.split}
    drawn = splits_to_draw(given, fractions=fractions)
    counts = Counter((file.label, file.split if file.split != "train" else None) for file in usable)
    problems = []
    for label in classes:
        if counts[label, None] < len(drawn):
            where = " in `train`" if given else ""
            problems.append(f"class {label!r} has {counts[label, None]}{where} and needs {len(drawn)} ({', '.join(drawn)})")
        problems += [f"class {label!r} has none in `{split}`" for split in given - {"train"} if not counts[label, split]]
    if problems:
        raise InputError(f"each class needs at least one usable image per split: {'; '.join(problems)}")


def splits_to_draw(given: Iterable[str | None], *, fractions: SplitConfig) -> list[str]:
    """The splits that images without a split of their own, or in the `train` folder, are shared out among.

    Without split folders these are all whose fraction is not 0. With them `train` stays as it is, but gives up a validation
    split where there is no such folder, since early stopping must look at images that are neither trained nor tested on.
    """
    present = {split for split in given if split}
    if not present - {"train"}:
        return [split for split in SPLITS if getattr(fractions, split) > 0]
    return ["train"] if "validation" in present else ["train", "validation"]


def digest_files(root: Path, files: Sequence[FoundFile]) -> list[FoundFile]:
    """Reads each file once and notes its size and SHA-256, or why it can't be read.

    The order is kept. Files are read in parallel: hashing lets go of the interpreter's lock.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda file: _digest(root, file), files, chunksize=16))


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
        raise SourceChangedError(f"{path!r} changed while the run was reading it; run the same command again")
    return contents


def _split_folders(root: Path) -> list[tuple[Path, str | None]]:
    """The folders that hold class folders, each with its split; just the root where there are no split folders."""
    names = _sub_folders(root)
    split_names = [name for name in names if name in SPLIT_FOLDERS]
    nested = [name for name in split_names if _sub_folders(root / name)]
    others = [name for name in names if name not in SPLIT_FOLDERS]
    if not nested or (others and ("train" not in nested or len(nested) == 1)):
        return [(root, None)]
    if others:
        raise InputError(
            f"`SOURCE` mixes split folders ({', '.join(nested)}) with others ({', '.join(others)}); move one kind away"
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


def _sub_folders(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(".") and (folder / name).is_dir())  # noqa: PTH208
    except OSError as error:
        raise InputError(f"`SOURCE` can't be listed: {str(folder)!r} ({error.strerror})") from error


def image_paths(folder: Path) -> list[Path]:
    """Image files at any depth, folder by folder in sorted order, as Keras walks."""
    walked = sorted(os.walk(folder), key=lambda entry: entry[0])
    return [Path(where, name) for where, _, names in walked for name in sorted(names) if name.lower().endswith(EXTENSIONS)]


def printable_path(path: Path) -> str:
    """A path with forward slashes, bytes that are not UTF-8 escaped."""
    return os.fsencode(path.as_posix()).decode("utf-8", errors="backslashreplace")


def _found(root: Path, path: Path, label: str, split: str | None) -> FoundFile:
    relative = path.relative_to(root).as_posix()
    try:
        relative.encode()
    except UnicodeEncodeError:
        problem = "unreadable: its name is not UTF-8; rename it"
        return FoundFile(printable_path(Path(relative)), label, split, problem=problem)
    return FoundFile(relative, label, split)


def _digest(root: Path, file: FoundFile) -> FoundFile:
    if file.problem:
        return file
    path = root / file.path
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return replace(file, problem="unreadable: not a regular file")
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            return replace(file, size_bytes=os.fstat(opened.fileno()).st_size, sha256=digest)
    except OSError as error:
        return replace(file, problem=f"unreadable: {error.strerror}")
