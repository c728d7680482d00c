"""The watch flow on Prefect's real temporary server: what it announces, and what it remembers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock

from pipelines.errors import InputError
from pipelines.sources.content import digest_source
from pipelines.sources.folder import FoundFile
from pipelines.sources.quiet import read_watched, watched_path
from pipelines.sources.source import FolderSource
from tests.command import run_command
from tests.sources.folders import write_classes, write_photo

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


class Place:
    """A source with a name of its own, so that its events are told from those of other tests."""

    def __init__(self, folder: Path) -> None:
        self.name = f"watched {folder.parent.name} {folder.name}"
        self.home, self.source = folder / "home", write_classes(folder / "photos", {"cat": 3, "dog": 3})
        self.path = watched_path(self.home, FolderSource(self.source), dataset=self.name)

    def look(self, settle_seconds: float = 0) -> dict[str, Any]:
        from flows.watch import watch

        found: dict[str, Any] = watch(str(self.source), str(self.home), self.name, settle_seconds)
        return found

    def events(self, *, at_least: int) -> list[dict[str, Any]]:
        """Those that the server has of this data set, oldest first; waits for so many."""
        from prefect.settings import PREFECT_API_URL

        query = {"resource": {"id": [f"dataset.{self.name}"]}, "event": {"name": ["dataset.changed"]}, "order": "ASC"}
        deadline = time.monotonic() + 60
        while True:
            found = httpx.post(f"{PREFECT_API_URL.value()}/events/filter", json={"filter": query}).raise_for_status().json()
            events: list[dict[str, Any]] = found["events"]
            if len(events) >= at_least or time.monotonic() > deadline:
                return events


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_quiet_change_becomes_one_event(place: Place) -> None:
    assert [place.look()["state"] for _ in range(4)] == ["settling", "changed", "known", "known"]
    write_photo(place.source / "cat" / "new.jpg", seed=7)
    assert place.look(settle_seconds=3600)["state"] == "settling"
    assert place.look(settle_seconds=3600)["state"] == "settling"
    changed = place.look()
    assert changed["state"] == "changed"
    events = place.events(at_least=2)
    assert len(events) == 2
    assert events[1]["payload"] == {"source": str(place.source), "dataset": place.name, "digest": changed["digest"]}
    assert events[0]["payload"]["digest"] != changed["digest"]


def test_a_folder_that_changes_while_it_is_read_is_not_announced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.look()
    find, photos = FolderSource.find, iter(range(100))

    def find_and_change(self: FolderSource, **options: Any) -> tuple[list[str], list[FoundFile]]:
        found = find(self, **options)
        (self.root / "cat" / "000.jpg").unlink(missing_ok=True)
        write_photo(self.root / "dog" / "001.jpg", seed=next(photos))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(FolderSource, "find", find_and_change)
        assert {place.look()["state"] for _ in range(3)} == {"settling"}
    quiet = place.look()  # the second look at what is there now
    assert quiet["state"] == "changed"
    assert quiet["digest"] == digest_source(place.home, FolderSource(place.source))
    assert [event["payload"]["digest"] for event in place.events(at_least=1)] == [quiet["digest"]]


@pytest.mark.parametrize("sent", [False, True])
def test_a_crash_around_the_event_repeats_it_rather_than_to_lose_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    import flows.watch

    emit = flows.watch._emit
    place.look()

    async def die(*arguments: Any) -> None:
        if sent:
            await emit(*arguments)
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(flows.watch, "_emit", die)
        with pytest.raises(ConnectionError):
            place.look()
    assert [place.look()["state"] for _ in range(2)] == ["changed", "known"]
    events = place.events(at_least=1 + sent)
    assert len(events) == 1 + sent
    assert len({event["payload"]["digest"] for event in events}) == 1


def test_a_second_watcher_leaves_the_first_alone(place: Place) -> None:
    place.look()
    before = read_watched(place.path)
    with FileLock(place.path.with_suffix(".lock")):
        assert place.look() == {"state": "busy"}
    assert read_watched(place.path) == before
    assert place.look()["state"] == "changed"


def test_a_source_that_is_gone_is_an_error_and_no_change(place: Place) -> None:
    for _ in range(2):
        place.look()
    away = place.source.rename(place.source.with_name("away"))
    with pytest.raises(InputError, match="does not exist"):
        place.look()
    place.source.mkdir()  # where a disk should be mounted
    with pytest.raises(InputError, match="has no sub-folders"):
        place.look()
    place.source.rmdir()
    away.rename(place.source)
    assert place.look()["state"] == "known"


def test_without_a_server_nothing_counts_as_announced(place: Place) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.watch import _look

    look: dict[str, Any] = {"path": place.path, "settle_seconds": 0}
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        states = [_look(place.home, FolderSource(place.source), "photos", place.name, **look)["state"] for _ in range(3)]
    assert states == ["settling", "unheard", "unheard"]
    assert place.look()["state"] == "changed"


@pytest.mark.parametrize(
    ("source", "home", "message"),
    [
        ("tfds:mnist", "home", "`SOURCE` must be a folder or a table to be watched; received 'tfds:mnist'"),
        ("photos", "photos/home", "`--home` must lie outside of SOURCE"),
        ("nothing", "home", "does not exist"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(place: Place, source: str, home: str, message: str) -> None:
    from flows.watch import watch

    folder = place.source.parent
    with pytest.raises(InputError, match=message):
        watch(source if ":" in source else str(folder / source), str(folder / home))


def test_the_command_looks_once_or_until_it_is_stopped(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--home", place.home, "--name", place.name, "--settle", 0]
    assert run_command("watch", place.source, *options) == 0
    assert "changed, and not yet quiet for long enough" in capfd.readouterr().out
    away = place.source.with_name("away")

    def pauses() -> Any:
        yield place.source.rename(away)
        yield away.rename(place.source)
        raise KeyboardInterrupt

    pause = pauses()
    monkeypatch.setattr("flows.watching.sleep", lambda _: next(pause))
    assert run_command("watch", place.source, *options, "--every", 60) == 130
    starting, *lines = capfd.readouterr().out.splitlines()
    assert (starting, len(lines)) == ("starting Prefect", 3)
    assert "changed, and announced as dataset.changed" in lines[0]
    assert "does not exist" in lines[1]
    assert "as it was announced" in lines[2]


def test_the_command_refuses_what_can_not_be_watched(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("watch", "tfds:mnist", "--home", place.home) == 2
    assert run_command("watch", place.source / "nothing", "--home", place.home) == 2
    errors = capfd.readouterr().err.splitlines()
    assert errors[0].startswith("imagemill: `SOURCE` must be a folder or a table to be watched")
    assert "does not exist" in errors[1]
    assert not place.home.exists()
