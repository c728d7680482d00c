"""What must be set before Prefect and TensorFlow are first imported, as environment variables.

Only defaults: what the user has set stays. With a server configured (`PREFECT_API_URL`, or a Prefect profile) the runs
go there; without one Prefect starts a temporary server, whose SQLite database these settings put into the home.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pipelines.errors import ImagemillError, InputError, RunError, one_line

QUIET_PREFECT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
}


def configure(home: Path, *, verbose: bool, environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets the defaults for a run with this home."""
    own_home = home.absolute() / "prefect"
    own_home.mkdir(parents=True, exist_ok=True)
    prefect_home = Path(environment.get("PREFECT_HOME", "~/.prefect")).expanduser()
    defaults = {
        **QUIET_PREFECT,
        # The user's profiles stay in force; everything that Prefect writes goes to the home.
        "PREFECT_PROFILES_PATH": str(prefect_home / "profiles.toml"),
        "PREFECT_HOME": str(own_home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_LOGGING_LEVEL": "INFO" if verbose else "CRITICAL",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING" if verbose else "CRITICAL",
        # TensorFlow's C++ side talks of optimised instructions on every start.
        "TF_CPP_MIN_LOG_LEVEL": "0" if verbose else "3",
    }
    for name, value in defaults.items():
        environment.setdefault(name, value)


def start_prefect() -> None:
    """Connects to the configured server, or starts the temporary one, deaf to Ctrl-C.

    A terminal sends Ctrl-C to every process of the command. A server that dies of it leaves the flow knocking at a closed
    door for minutes; the signal mask that it inherits here keeps it alive until the flow has told it and stops it.

    Raises:
        RunError: there is no server at the configured address.
    """
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            client.hello().raise_for_status()
    except HTTPError as error:
        raise RunError(
            f"the Prefect server at {PREFECT_API_URL.value()} does not answer ({one_line(error)}); start it, or unset"
            " `PREFECT_API_URL` (and leave the Prefect profile that sets it) to run without one"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def importing_ahead(home: Path) -> Iterator[None]:
    """Imports what the stages need in a thread beside the block, in which Prefect's server starts in a process of its own.

    Not where records lie in the home: the run may then be all cache hits, which need none of it.
    """
    if (home / "records").exists():
        yield
        return
    modules = ("data.prepare", "training.embed", "training.phases", "evaluation.evaluate", "export.export")
    names = [f"pipelines.{module}" for module in modules]
    thread = threading.Thread(target=lambda: [importlib.import_module(name) for name in names])
    thread.start()
    try:
        yield
    finally:
        thread.join()  # else TensorFlow's talk on standard error would come when nobody keeps it in a log any more


@contextmanager
def stderr_to_log(folder: Path, *, verbose: bool) -> Iterator[None]:
    """Sends standard error, that of native code and child processes too, to a log file; with `verbose` leaves it alone.

    TensorFlow's native side, libjpeg and Prefect's server write there whatever they are told. The log stays only when
    the run failed; an error that nobody foresaw leaves its traceback in it, and a note on the exception says where that is.
    """
    if verbose:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    keep = True
    with _redirected_stderr(log):
        try:
            yield
            keep = False
        except (InputError, KeyboardInterrupt):
            keep = False
            raise
        except ImagemillError:
            raise
        except Exception as error:
            traceback.print_exc()
            error.add_note(f"traceback in {log}")
            raise
        finally:
            if not keep:
                log.unlink(missing_ok=True)


@contextmanager
def _redirected_stderr(log: Path) -> Iterator[None]:
    terminal = os.dup(2)
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
