"""A folder of images that another process changes all the time while `imagemill train` reads it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.store.index import read_index
from tests.flows.commands import finish, start_command, write_recipe
from tests.sources.folders import write_tinted

pytestmark = pytest.mark.slow
# Until its standard input is closed, and 20,000 rounds at most, it puts one image in another's place (as an upload does: first
# an empty file, then its bytes; the other is sometimes just as long), adds one and removes one. It never stops within a round.
_CHANGES = """
import itertools, select, sys
from pathlib import Path
folder, spare = Path(sys.argv[1]), [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
for count in range(20_000):
    old, new = folder / f"{count % 10:03d}.png", folder / f"new {count % 7}.png"
    old.write_bytes(spare[count % len(spare)])
    new.write_bytes(spare[(count * 5 + 1) % len(spare)])
    (folder / f"new {(count + 3) % 7}.png").unlink(missing_ok=True)
    if count == 20:
        print("under way", flush=True)
    if select.select([sys.stdin], [], [], 0.002)[0]:
        break
print(count)
"""


def test_what_changes_while_it_is_read_ends_in_one_line_or_a_run_and_the_next_run_is_right(tmp_path: Path) -> None:
    source = write_tinted(tmp_path / "photos", {"red": 40, "green": 40})
    spare = write_tinted(tmp_path / "others", {"blue": 24}) / "blue"
    twins = [path.read_bytes() for path in sorted(spare.iterdir())[:4]]
    longest = max(map(len, twins))
    for number, contents in enumerate(twins):  # of one length: neither their size nor, within a tick, their time tells of them
        (spare / f"{number:03d}.png").write_bytes(contents.ljust(longest, b"\0"))
    recipe = write_recipe(tmp_path / "recipe.yaml", registry={"enabled": False})
    command = ["train", source, "--config", recipe, "--home", tmp_path / "home", "--out"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _CHANGES, str(source / "green"), str(spare)], **pipes) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"under way\n"
        restless = start_command(*command, tmp_path / "restless")
        errors = restless.communicate(timeout=300)[1]
        assert int(writer.communicate()[0]) > 20
    assert (restless.returncode, len(errors.splitlines())) in {(0, 0), (1, 1)}, errors
    assert (tmp_path / "restless" / "metrics.json").exists() == (restless.returncode == 0)
    if errors:
        assert "run the same command again" in errors
        assert errors.startswith("imagemill: 'green/")
    finish(start_command(*command, tmp_path / "quiet"))
    rows = read_index(tmp_path / "quiet" / "index.parquet")
    there = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*.png")}
    assert {row["path"]: row["sha256"] for row in rows} == {
        path: hashlib.sha256(contents).hexdigest() for path, contents in there.items()
    }
    assert {row["status"] for row in rows} == {"ok"}
