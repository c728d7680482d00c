"""One child process, seen from the flow: it is asked, it answers, and it ends with all that it started.

It has a session of its own, so that Ctrl-C reaches the flow alone, which then tells the child to save and to leave.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from pipelines.store.artifacts import disk_errors
from tasks.child import SECONDS_TO_LEAVE
from tasks.spawn import python_command
from tasks.work_locks import send_locks

_LOG_LINES_SHOWN = 15
_NO_NEWS = "WARNING: All log messages before absl::InitializeLog()"  # of TensorFlow, in every log
_KILLED_BY_THE_SYSTEM = -signal.SIGKILL


class Child:
    """A process that runs `tasks.child`, from its start on.

    Args:
        logs: folder for its log, which stays only where the child was lost; None for standard error.
    """

    def __init__(self, logs: Path | None) -> None:
        with ExitStack() as opened:
            # TensorFlow tidies its generated code up when Python ends, which the child does not wait for (`os._exit`, SIGKILL).
            temporary = opened.enter_context(tempfile.TemporaryDirectory(prefix="imagemill-child-", ignore_cleanup_errors=True))
            self._log = None if logs is None else opened.enter_context(_new_log(logs))
            self._keep_log = False
            opened.callback(self._remove_log)
            self._locks, theirs = socket.socketpair()
            opened.enter_context(self._locks)
            with theirs:
                self._process = subprocess.Popen(
                    python_command("tasks.child", "main", temporary, str(theirs.fileno())),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    env={**os.environ, "TMPDIR": temporary},
                    text=True,
                    start_new_session=True,
                    pass_fds=[theirs.fileno()],
                )
            self._opened = opened.pop_all()

    @property
    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any]) -> None:
        """Asks for something; with it go the locks that this process holds. That the child has ended shows in `answers`."""
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            locks = send_locks(self._locks)
            self._process.stdin.write(json.dumps({**request, "locks": locks}) + "\n")
            self._process.stdin.flush()

    def answers(self) -> Iterator[dict[str, Any]]:
        """What it says, until it ends; what one that was killed has said by half is no answer."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                yield json.loads(line)

    def tell_loss(self, what: str) -> str:
        """Ends what is left of a child that ended by itself, and returns what is known of it; its log stays.

        Args:
            what: what the child was, to begin the text with.
        """
        self._keep_log = True
        try:
            status = self._process.wait()  # a core dump may take its time
        finally:
            self.end(save=False)
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        hint = ", as the system does when memory runs out" if status == _KILLED_BY_THE_SYSTEM else ""
        told = f"{what} ended by {how}{hint}"
        if self._log is None:
            return told
        log = Path(self._log.name)
        lines = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith(_NO_NEWS)]
        return "\n".join([f"{told}; its log is {log}", *lines[-_LOG_LINES_SHOWN:]])

    def end(self, *, save: bool) -> None:
        """Ends it, and all that it started.

        Args:
            save: it is given time to save what it is at; where it does not leave in time, it is killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdout.close()  # nobody reads it any more: a child in the middle of an answer must not wait for that
            with suppress(BrokenPipeError):
                self._process.stdin.close()  # the child takes this as SIGTERM
            if save:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(SECONDS_TO_LEAVE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._opened.close()

    def _remove_log(self) -> None:
        if self._log is not None and not self._keep_log:
            Path(self._log.name).unlink(missing_ok=True)


def _new_log(folder: Path) -> IO[bytes]:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=folder, prefix="worker-", suffix=".log", delete=False)
