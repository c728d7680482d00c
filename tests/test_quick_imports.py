"""Imports that the garbage collector leaves alone."""

from __future__ import annotations

import gc

import pytest

from pipelines.quick_imports import quick_imports


def test_the_collector_rests_in_the_block_and_is_as_it_was_after_it() -> None:
    assert gc.isenabled()
    with pytest.raises(ImportError), quick_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
