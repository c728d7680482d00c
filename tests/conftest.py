"""What many tests share: small class folders of drawn images, and one Prefect server for the whole session."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import logging as absl_logging

# Before anything imports TensorFlow or Prefect.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parents[1] / ".pytest_cache" / "user")  # not the developer's own
import flows  # noqa: F401 (it says which of TensorFlow's kernels are used)
from tests.sources.folders import write_classes

# absl, which TensorFlow imports, takes what is standard error then, and closes it when Prefect sets up logging: a test with a
# capture of its own would so close that of pytest, for all tests that follow.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__
# A shell makes what it runs in the background deaf to Ctrl-C; tests send one to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of twelve small JPEG photos each."""
    return write_classes(tmp_path / "photos", {"cat": 12, "dog": 12})


@pytest.fixture(scope="session", autouse=True)
def _own_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Devices that are taken among the processes of this test session alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IMAGEMILL_SLOTS", str(tmp_path_factory.mktemp("slots")))
        yield


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's real temporary server over SQLite, started once; the heavy stages of its flows run in this process."""
    from flows.surroundings import configure
    from tasks.worker import use_worker
    from tests.wire import WireWorker

    saved = dict(os.environ)
    configure(tmp_path_factory.mktemp("prefect-home"), verbose=False)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    settings = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with prefect_test_harness(server_startup_timeout=90), temporary_settings(settings), use_worker(WireWorker()):
        yield
    os.environ.clear()
    os.environ.update(saved)
