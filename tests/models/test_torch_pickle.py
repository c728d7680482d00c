"""The reader of PyTorch's legacy files, against files made by hand: PyTorch is not needed, here or there."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipelines.errors import WeightsUnavailableError
from pipelines.models.torch_pickle import read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class View(NamedTuple):
    """What to store of a tensor: its storage's key and type, then counts in elements."""

    key: str
    kind: str
    elements: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Tensor:
    """Pickles as PyTorch's tensors do: a call of `torch._utils._rebuild_tensor_v2` on a persistent storage."""

    def __init__(self, view: View) -> None:
        self.view = view

    def __reduce__(self) -> Any:
        view = self.view
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (Storage(view), view.offset, view.shape, view.strides, False, OrderedDict())


class Storage:
    def __init__(self, view: View) -> None:
        self.view = view


class TensorPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        storage_type = getattr(sys.modules["torch"], obj.view.kind)
        return ("storage", storage_type, obj.view.key, "cpu", obj.view.elements, None)


@pytest.fixture(autouse=True)
def torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty stand-ins with PyTorch's names, so that `pickle` can write references to them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in ("FloatStorage", "DoubleStorage", "LongStorage", "HalfStorage", "BoolStorage", "BFloat16Storage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        exec(f"def {name}(*args): raise AssertionError('called')", utils.__dict__)
        getattr(utils, name).__module__ = "torch._utils"
    torch._utils = utils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def legacy_bytes(state: Any, storages: dict[str, np.ndarray], *, magic: int = MAGIC, system: Any = SYSTEM) -> bytes:
    buffer = io.BytesIO()
    for part in (magic, 1001, system, state, list(storages)):
        TensorPickler(buffer, protocol=2).dump(part)
    for array in storages.values():
        buffer.write(np.int64(array.size).tobytes() + array.tobytes())
    return buffer.getvalue()


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return path


def float_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, elements: int = 24) -> Tensor:
    return Tensor(View("k", "FloatStorage", elements, offset, shape, strides))


VALUES = np.arange(24, dtype="<f4")


def test_strides_and_offsets_are_honoured(tmp_path: Path) -> None:
    state = OrderedDict(
        contiguous=float_view((2, 3, 4), (12, 4, 1)),
        permuted=float_view((4, 2, 3), (1, 12, 4)),
        part=float_view((3, 2), (4, 12), offset=3),
        scalar=float_view((), (), offset=7),
        empty=float_view((0, 3), (3, 1)),
    )
    read = read_state_dict(write(tmp_path, legacy_bytes(state, {"k": VALUES})))
    cube = VALUES.reshape(2, 3, 4)
    np.testing.assert_array_equal(read["contiguous"], cube)
    np.testing.assert_array_equal(read["permuted"], cube.transpose(2, 0, 1))
    np.testing.assert_array_equal(read["part"], cube[:, :, 3].T)
    assert read["scalar"].shape == ()
    assert read["scalar"] == 7
    assert read["empty"].shape == (0, 3)
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in read.values())


def test_every_storage_has_its_own_type_and_place(tmp_path: Path) -> None:
    storages = {
        "b": np.array([1.5, -2.0]),
        "a": np.array([2**40, -3], dtype="<i8"),
        "d": np.array([0.5, 3.0], dtype="<f2"),
        "c": np.array([True, False]),
    }
    kinds = {"b": "DoubleStorage", "a": "LongStorage", "d": "HalfStorage", "c": "BoolStorage"}
    state = {f"tensor.{key}": Tensor(View(key, kind, 2, 0, (2,), (1,))) for key, kind in kinds.items()}
    read = read_state_dict(write(tmp_path, legacy_bytes(state, storages)))
    for key, expected in storages.items():
        assert read[f"tensor.{key}"].dtype == expected.dtype
        np.testing.assert_array_equal(read[f"tensor.{key}"], expected)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((24,), (1,), 1), ((2, 12), (13, 1), 0), ((1,), (1,), 24), ((25,), (0,), 0), ((10**12,), (0,), 0)],
)
def test_nothing_is_read_outside_a_storage(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    path = write(tmp_path, legacy_bytes({"w": float_view(shape, strides, offset)}, {"k": VALUES}))
    with pytest.raises(WeightsUnavailableError, match=r"weights\.pth: `w` reaches outside its storage$"):
        read_state_dict(path)


@pytest.mark.parametrize("shape", [(1,) * 70, (0, 2**70)])
def test_shapes_that_cannot_be(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write(tmp_path, legacy_bytes({"w": float_view(shape, (1,) * len(shape))}, {"k": VALUES}))
    with pytest.raises(WeightsUnavailableError, match="`w` has a shape or strides that can't be"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("shape", "strides"), [((-1,), (1,)), ((2,), (-1,)), ((2, 3), (1,)), ((2.0,), (1,)), ((True,), (1,)), (None, (1,))]
)
def test_malformed_tensors_are_refused(tmp_path: Path, shape: Any, strides: Any) -> None:
    path = write(tmp_path, legacy_bytes({"w": float_view(shape, strides)}, {"k": VALUES}))
    with pytest.raises(WeightsUnavailableError, match="`w` is not a tensor"):
        read_state_dict(path)


class Hostile:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def test_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    sentinel = tmp_path / "pwned"
    for state in (Hostile(os.mkdir, str(sentinel)), {"w": Hostile(os.mkdir, str(sentinel))}):
        path = write(tmp_path, legacy_bytes(state, {}))
        with pytest.raises(WeightsUnavailableError, match=rf"refused: it asks for `{os.name}\.mkdir`"):
            read_state_dict(path)
        assert not sentinel.exists()
        pickle.loads(pickle.dumps(state))  # the control: an ordinary unpickler does run it
        assert sentinel.exists()
        sentinel.rmdir()


def test_hostile_first_pickle_runs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, pickle.dumps(Hostile(os.mkdir, str(tmp_path / "pwned"))))
    with pytest.raises(WeightsUnavailableError, match="refused: it asks for"):
        read_state_dict(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("collections", "Counter"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch", "BFloat16Storage"),
        ("torch", "FloatStorage.mro"),
        ("numpy", "frombuffer"),
    ],
)
def test_only_the_names_of_a_state_dict_are_resolved(tmp_path: Path, module: str, name: str) -> None:
    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()  # SHORT_BINUNICODE

    asking = b"\x80\x04" + text(module) + text(name) + b"\x93."  # STACK_GLOBAL, STOP
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, SYSTEM))
    with pytest.raises(WeightsUnavailableError) as caught:
        read_state_dict(write(tmp_path, head + asking))
    assert str(caught.value) == f"weights.pth: refused: it asks for `{module}.{name}`, which weights don't need"


def test_every_truncation_is_said_in_one_line(tmp_path: Path) -> None:
    whole = legacy_bytes({"w": float_view((2, 3, 4), (12, 4, 1)), "v": float_view((3,), (1,))}, {"k": VALUES})
    assert read_state_dict(write(tmp_path, whole))["w"].shape == (2, 3, 4)
    for length in range(len(whole)):
        # Cut inside a name, the file asks for the rest of it, such as `torch._utils._rebui`.
        with pytest.raises(WeightsUnavailableError, match=r"^weights\.pth: (is truncated|refused: it asks)[^\n]*$"):
            read_state_dict(write(tmp_path, whole[:length]))


def test_flipped_bits_raise_nothing_else(tmp_path: Path) -> None:
    """Broken in any one bit, the file either still reads or is refused in one line."""
    whole = legacy_bytes({"w": float_view((2, 3, 4), (12, 4, 1))}, {"k": VALUES})
    refused: Counter[bool] = Counter()
    for position in range(len(whole)):
        for bit in (position % 8, (position + 3) % 8):
            broken = bytearray(whole)
            broken[position] ^= 1 << bit
            path = write(tmp_path, bytes(broken))
            try:
                read_state_dict(path)
            except WeightsUnavailableError as error:
                assert "\n" not in str(error)  # noqa: PT017 - the other outcome is fine too
                refused[True] += 1
            else:
                refused[False] += 1
    assert refused[True] > 100
    assert refused[False] > 100  # the numbers themselves are unprotected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is truncated, or not a legacy PyTorch file"),
        (b"not weights at all", "is truncated, or not a legacy PyTorch file"),
        (b"PK\x03\x04rest", "is in PyTorch's zip format; only the legacy format is read here"),
        (pickle.dumps(5), "is not a PyTorch file: the magic number differs"),
        (pickle.dumps(MAGIC) + pickle.dumps(1000), "is of protocol 1000; only 1001"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(WeightsUnavailableError, match=message):
        read_state_dict(write(tmp_path, content))


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    system = {**SYSTEM, "little_endian": False}
    with pytest.raises(WeightsUnavailableError, match="little-endian"):
        read_state_dict(write(tmp_path, legacy_bytes({}, {}, system=system)))


@pytest.mark.parametrize("state", [{"w": 1}, {"w": {"nested": float_view((1,), (1,))}}, [1], {1: 2}])
def test_other_objects_than_state_dicts_are_refused(tmp_path: Path, state: Any) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"is not a tensor|does not hold a state dict"):
        read_state_dict(write(tmp_path, legacy_bytes(state, {})))


def test_tensor_and_storage_must_agree(tmp_path: Path) -> None:
    tensor = float_view((2,), (1,), elements=99)
    with pytest.raises(WeightsUnavailableError, match="`w` does not match its storage 'k'"):
        read_state_dict(write(tmp_path, legacy_bytes({"w": tensor}, {"k": VALUES})))
    with pytest.raises(WeightsUnavailableError, match="`w` does not match its storage 'k'"):
        read_state_dict(write(tmp_path, legacy_bytes({"w": tensor}, {})))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"nowhere\.pth: can't be read \(No such file or directory\)"):
        read_state_dict(tmp_path / "nowhere.pth")
