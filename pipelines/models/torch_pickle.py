"""Reads PyTorch's legacy (non-zip) state-dict files without PyTorch, and without running code that a file names.

The layout is that of `torch.save` before version 1.6 (`torch/serialization.py`, `_legacy_save`): five pickles in a row
(magic number, protocol, system information, the state dict, the keys of the storages), then for each storage, in the
order of those keys, an int64 count of elements and the little-endian elements. A tensor is a view of a storage: offset,
shape and strides, all counted in elements.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.errors import WeightsUnavailableError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_ZIP_SIGNATURE = b"PK\x03\x04"
_COUNT = np.dtype("<i8")
_STORAGE_DTYPES: Mapping[str, str] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# All that unpickling a broken or hostile file was seen, or is documented, to raise.
_UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class _StorageType(NamedTuple):
    """Stands for a `torch.*Storage` class; deliberately not callable, so that a pickle can't make anything of it."""

    dtype: str


class _Storage(NamedTuple):
    key: str
    dtype: str
    elements: int


class _View(NamedTuple):
    """A tensor before its storage is read; nothing in it is trusted until `_materialise` has checked it."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def read_state_dict(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads all tensors of a legacy PyTorch state dict.

    Args:
        path: a file that `torch.save(state_dict, path)` wrote in the legacy format.

    Returns:
        Name -> contiguous array of the tensor's own shape and stored dtype, with its strides honoured.

    Raises:
        WeightsUnavailableError: the file can't be read, is truncated or in another format, names anything that a state
            dict does not need (which is then neither imported nor called), or has a tensor that reaches outside its
            storage.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            return _read(file, size_bytes)
    except OSError as error:
        raise WeightsUnavailableError(f"{path.name}: can't be read ({error.strerror or error})") from error
    except WeightsUnavailableError as error:
        raise WeightsUnavailableError(f"{path.name}: {error}") from error


def _read(file: BinaryIO, size_bytes: int) -> dict[str, npt.NDArray[Any]]:
    if file.read(len(_ZIP_SIGNATURE)) == _ZIP_SIGNATURE:
        raise WeightsUnavailableError("is in PyTorch's zip format; only the legacy format is read here")
    file.seek(0)
    if _unpickle(file, "magic number") != _MAGIC_NUMBER:
        raise WeightsUnavailableError("is not a PyTorch file: the magic number differs")
    if (protocol := _unpickle(file, "protocol version")) != _PROTOCOL_VERSION:
        raise WeightsUnavailableError(f"is of protocol {protocol!r}; only {_PROTOCOL_VERSION} is read here")
    system = _unpickle(file, "system information")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsUnavailableError("was not written on a little-endian machine; no other byte order is read here")
    views = _unpickle(file, "state dict")
    if not isinstance(views, dict) or not all(isinstance(name, str) for name in views):
        raise WeightsUnavailableError("does not hold a state dict (a mapping of names to tensors)")
    for name, view in views.items():
        if not _is_view(view):
            raise WeightsUnavailableError(f"`{name}` is not a tensor")
    keys = _unpickle(file, "list of storages")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise WeightsUnavailableError("its list of storages is not a list of names")
    dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
    storages = {key: _read_storage(file, key, dtypes.get(key), size_bytes) for key in keys}
    return {name: _materialise(name, view, storages) for name, view in views.items()}


class _StateDictUnpickler(pickle._Unpickler):
    """Resolves the few names that a state dict needs; every other name is refused before it is imported.

    Python's own unpickler rather than the one in C: there, one flipped bit can make a memo index of billions, for which
    memory is taken until the process is killed (seen: `R` -> `r`, LONG_BINPUT). A file of 300 tensors and 19 MB takes
    0.05 s.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(_STORAGE_DTYPES[name])
        raise WeightsUnavailableError(f"refused: it asks for `{module}.{name}`, which weights don't need")

    def persistent_load(self, pid: Any) -> _Storage:
        """The numbers of a tensor, which lie in a file of their own; called by pickle."""
        if not isinstance(pid, tuple) or len(pid) != 6 or pid[0] != "storage":
            raise WeightsUnavailableError("refused: it refers to an outside object that is not a storage")
        _, storage_type, key, _, elements, view = pid
        if not isinstance(storage_type, _StorageType) or not isinstance(key, str) or not _is_count(elements):
            raise WeightsUnavailableError("has a malformed reference to a storage")
        if view is not None:
            raise WeightsUnavailableError("uses views of storages, which are not read here")
        return _Storage(key, storage_type.dtype, elements)


def _unpickle(file: BinaryIO, what: str) -> Any:
    try:
        return _StateDictUnpickler(file).load()
    except _UNPICKLING_ERRORS as error:
        raise WeightsUnavailableError(f"is truncated, or not a legacy PyTorch file: its {what} can't be unpickled") from error


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    """In place of `torch._utils._rebuild_tensor_v2`, whose further arguments (gradient, hooks) mean nothing here."""
    return _View(storage, offset, shape, strides)


def _read_storage(file: BinaryIO, key: str, dtype: str | None, size_bytes: int) -> npt.NDArray[Any]:
    if dtype is None:  # without a tensor that refers to it, the width of its elements is unknown
        raise WeightsUnavailableError(f"storage {key!r} belongs to no tensor")
    count = int(np.frombuffer(_read_bytes(file, _COUNT.itemsize, key, size_bytes), _COUNT)[0])
    data = _read_bytes(file, count * np.dtype(dtype).itemsize, key, size_bytes)
    return np.frombuffer(data, dtype)


def _read_bytes(file: BinaryIO, count: int, key: str, size_bytes: int) -> bytes:
    """Compares with what is left before it allocates: a broken count may ask for any amount."""
    if not 0 <= count <= size_bytes - file.tell():
        raise WeightsUnavailableError(f"is truncated: storage {key!r} ends early")
    return file.read(count)


def _materialise(name: str, view: _View, storages: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    storage = storages.get(view.storage.key)
    if storage is None or storage.size != view.storage.elements or storage.dtype != np.dtype(view.storage.dtype):
        raise WeightsUnavailableError(f"`{name}` does not match its storage {view.storage.key!r}")
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    elements = math.prod(view.shape)
    # The second rule keeps stride 0 from blowing one element up to any size; no weight is stored in that way.
    if elements > 0 and (last >= storage.size or elements > storage.size):
        raise WeightsUnavailableError(f"`{name}` reaches outside its storage")
    base = storage[view.offset :] if elements else storage[:0]
    strides_bytes = [stride * storage.itemsize for stride in view.strides]
    try:
        strided = np.lib.stride_tricks.as_strided(base, view.shape, strides_bytes, writeable=False)
    except (ValueError, OverflowError) as error:  # too many axes, or numbers that no tensor of this file needs
        raise WeightsUnavailableError(f"`{name}` has a shape or strides that can't be") from error
    return np.array(strided, dtype=storage.dtype.newbyteorder("="), order="C")


def _is_view(view: Any) -> bool:
    return (
        isinstance(view, _View)
        and isinstance(view.storage, _Storage)
        and _is_count(view.offset)
        and all(isinstance(part, tuple) and all(map(_is_count, part)) for part in (view.shape, view.strides))
        and len(view.shape) == len(view.strides)
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
