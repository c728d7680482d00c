"""What must be set before Prefect and TensorFlow are first imported, as environment variables.

Only defaults: what the user has set stays. With a server configured (`PREFECT_API_URL`, or a Prefect profile) the runs
go there; without one a temporary server is started, whose SQLite database these settings put into the home.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryFile

from rich.console import Console

from flows.console import say
from flows.temporary_server import TemporaryServer, keep_template
from pipelines.errors import ImagemillError, InputError, RunError, one_line
from tasks.server import TEMPORARY

_DATABASE_BYTES = 2 * 2**20  # of Prefect 3.8 without a flow run: 1.3 MB, and what is not merged into it yet

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
        "PREFECT_LOGGING_LEVEL": "INFO" if verbose else "CRITICAL",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING" if verbose else "CRITICAL",
        # TensorFlow's C++ side talks of optimised instructions on every start.
        "TF_CPP_MIN_LOG_LEVEL": "0" if verbose else "3",
    }
    for name, value in defaults.items():
        environment.setdefault(name, value)


def has_server(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a Prefect server is configured: by the environment, a profile or a file that Prefect reads.

    Prefect itself is asked, and imported for that, only where there is anything that may say so.
    """
    signs = {environment["PREFECT_PROFILES_PATH"]: "", "prefect.toml": "", "pyproject.toml": "tool.prefect", ".env": "PREFECT_"}
    said = any(name in environment for name in ("PREFECT_API_URL", "PREFECT_PROFILE"))
    if not said and not any(
        Path(name).is_file() and sign in Path(name).read_text(errors="replace") for name, sign in signs.items()
    ):
        return False
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() is not None


def start_server() -> TemporaryServer | None:
    """Starts a temporary server where none is configured, and makes it the one that Prefect uses."""
    if has_server():
        return None
    server = TemporaryServer()
    os.environ["PREFECT_API_URL"] = os.environ[TEMPORARY] = server.url
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    return server


def await_prefect(server: TemporaryServer | None) -> None:
    """Waits until the server answers.

    Args:
        server: the temporary one, or None where one is configured.

    Raises:
        RunError: it does not answer, or there is no space for its database.
    """
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    try:
        with get_client(sync_client=True) as client:
            client.hello().raise_for_status()
    except HTTPError as error:
        if server is not None:
            _check_space(Path(os.environ["PREFECT_HOME"]))
            raise RunError(f"Prefect's temporary server did not start ({one_line(error)})") from error
        without = ", or unset `PREFECT_API_URL` (and leave the Prefect profile that sets it) to run without one"
        raise RunError(explain_no_answer(error, str(PREFECT_API_URL.value())) + without) from error
    if server is not None and server.made_anew:
        keep_template()


def _check_space(folder: Path) -> None:
    """Writes what a new database of Prefect's takes, and removes it."""
    from pipelines.store.artifacts import disk_errors

    with suppress(OSError), disk_errors(folder), TemporaryFile(dir=folder) as probe:
        probe.write(bytes(_DATABASE_BYTES))


def explain_no_answer(error: Exception, url: str) -> str:
    """Why a Prefect server gave no good answer, and what to do, in one line."""
    if getattr(getattr(error, "response", None), "status_code", None) == HTTPStatus.UNAUTHORIZED:
        return f"the Prefect server at {url} refuses these credentials; set `PREFECT_API_AUTH_STRING` to its user:password"
    return f"the Prefect server at {url} does not answer ({one_line(error)}); start it"


def start_prefect(console: Console, *, meanwhile: Callable[[], object]) -> None:
    """Starts the server where that is needed, says so, and waits for it.

    Args:
        console: to say so on.
        meanwhile: what can be done before it answers, such as to import what a flow needs.

    Raises:
        RunError: it does not answer.
    """
    if not console.is_terminal:
        say(console, "starting Prefect")
    with console.status("starting Prefect"):
        server = start_server()
        meanwhile()
        await_prefect(server)


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
        try:
            with suppress(OSError):  # a full disk, of which there is more to tell than this
                sys.stderr.flush()
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
