"""`imagemill models`, `promote` and `rollback`, and a model of the registry wherever a command takes a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.console import print_table, printable, say
from pipelines.errors import InputError, RegistryUnreachableError
from pipelines.registry.connection import Registry, connected
from pipelines.registry.fetch import PREFIX, fetch, parse_reference
from pipelines.registry.moves import Move
from pipelines.registry.outbox import waiting_entries
from pipelines.registry.promote import check_model, read_history
from pipelines.registry.promote import promote as move_champion
from pipelines.registry.promote import rollback as move_back
from pipelines.registry.register import CHALLENGER, CHAMPION, registry_lock
from pipelines.registry.service import deliver_waiting
from pipelines.registry.versions import Model, Version, list_models, list_versions

_DIGEST_CHARACTERS = 8
_REASON = 300  # characters of one that are shown


def is_reference(text: str) -> bool:
    """Whether MODEL means one of the registry."""
    return text.startswith(PREFIX)


def find_model(text: str, registry: Registry) -> Path:
    """The run folder that MODEL means: a path, or `models:/NAME@ALIAS` or `models:/NAME/VERSION` of the registry.

    Raises:
        InputError: there is no such model, version or alias in the registry.
        RunError: the registry does not answer, or what it holds was altered.
    """
    return fetch(registry, parse_reference(text)) if is_reference(text) else Path(text)


def show_models(registry: Registry, name: str | None, *, deliver: bool, console: Console) -> None:
    """Prints what the registry holds: all models in short, or one with its versions and the history of its champion.

    Args:
        registry: to look into.
        name: of a model, or None.
        deliver: whether to register first what waits.
        console: to print on.

    Raises:
        InputError: there is no such model.
        RegistryUnreachableError: the registry does not answer.
    """
    if deliver:
        delivered = deliver_waiting(registry, note=partial(say, console))
        say(console, f"{delivered} waiting runs and decisions delivered")
    if not registry.exists:
        check_not_asked(registry, name)
        say(console, f"no model was registered in {registry.home} yet")
    else:
        with connected(registry) as client:
            if name is None:
                _print_models([(model, list_versions(client, model.name)) for model in list_models(client)], console)
            else:
                check_model(client, name)
                _print_versions(name, list_versions(client, name), console)
                _print_history(read_history(client, name), console)
        tool = f"mlflow ui --backend-store-uri {shlex.quote(registry.client_uri)}"
        look = registry.address if registry.client_uri.startswith("http") else tool
        say(console, f"curves and pictures: {look}")
    if waiting := waiting_entries(registry):
        say(console, f"{len(waiting)} runs and decisions wait for the registry: imagemill models --deliver")


def promote_version(registry: Registry, name: str, version: int, *, reason: str, console: Console) -> None:
    """Makes a version champion and says what was before.

    Raises:
        InputError: there is no such model or version.
        RegistryUnreachableError: the registry does not answer.
    """
    check_not_asked(registry, name)
    with registry_lock(registry), connected(registry) as client:
        earlier = move_champion(client, name, version, reason=reason)
    _say_moved(name, earlier, version, console)


def roll_back(registry: Registry, name: str, *, to: int | None, reason: str, console: Console) -> None:
    """Makes an earlier champion champion again and says what was before.

    Raises:
        InputError: there is no such model or no such champion.
        RegistryUnreachableError: the registry does not answer.
    """
    check_not_asked(registry, name)
    with registry_lock(registry), connected(registry) as client:
        earlier, version = move_back(client, name, to=to, reason=reason)
    _say_moved(name, earlier, version, console)


def check_not_asked(registry: Registry, name: str | None) -> None:
    """Refuses a model by name where there is no registry yet, and makes none.

    Raises:
        InputError: saying where a registry is looked for.
    """
    if name is not None and not registry.exists:
        raise InputError(f"no model was registered in {str(registry.home)!r} yet; `--home` and `--registry` say where to look")


def _say_moved(name: str, earlier: int | None, version: int, console: Console) -> None:
    if earlier == version:
        say(console, f"version {version} of {printable(name)} is champion already")
    else:
        before = "there was none" if earlier is None else f"it was version {earlier}"
        say(console, f"version {version} of {printable(name)} is champion now; {before}")


def describe_champions(registry: Registry) -> Iterator[str]:
    """A line for each model of the registry: its champion, and how it came to be; and how many runs wait for the registry."""
    waiting = len(waiting_entries(registry))
    if waiting:
        yield f"  {waiting} runs or decisions wait for {registry.address}; `imagemill models --deliver` tells it"
    if not registry.exists:
        return
    try:
        with connected(registry) as client:
            found = [(model.name, read_history(client, model.name)) for model in list_models(client)]
    except RegistryUnreachableError as error:
        yield f"  {error}"
        return
    for name, moves in found:
        yield f"  {printable(name)}: {_describe_move(moves[-1]) if moves else 'none'}"


def _describe_move(move: Move) -> str:
    when = _local_time(datetime.fromisoformat(move.at)) if move.at else "at an unknown time"
    what = "none" if move.version is None else f"version {move.version}"
    how = {"promote": "promoted", "rollback": "rolled back", "outside": "moved by other tools than imagemill"}[move.kind]
    return f"{what}, {how} {when}{f': {printable(move.reason, longest=_REASON)}' if move.reason else ''}"


def _print_models(models: list[tuple[Model, list[Version]]], console: Console) -> None:
    table = Table(title="registered models", title_justify="left")
    for column in ("model", "versions", CHAMPION, "accuracy", CHALLENGER):
        table.add_column(column)
    for model, versions in models:
        champion = model.aliases.get(CHAMPION)
        accuracy = next((version.accuracy for version in versions if version.number == champion), "")
        numbers = ["" if number is None else str(number) for number in (champion, model.aliases.get(CHALLENGER))]
        table.add_row(Text(printable(model.name)), str(len(versions)), numbers[0], accuracy, numbers[1])
    print_table(console, table)


def _print_versions(name: str, versions: list[Version], console: Console) -> None:
    table = Table(title=Text(printable(name)), title_justify="left")
    table.add_column("version", justify="right")
    for column in ("aliases", "accuracy", "data", "registered", "gate"):
        table.add_column(column, overflow="fold")
    for version in versions:
        reason = printable(version.reason, longest=_REASON)
        verdict = f"{version.verdict}: {reason}" if reason else version.verdict
        table.add_row(
            str(version.number),
            Text(", ".join(version.aliases)),
            version.accuracy,
            version.data[:_DIGEST_CHARACTERS],
            _local_time(version.created),
            Text(verdict),
        )
    print_table(console, table)


def _print_history(moves: list[Move], console: Console) -> None:
    if moves:
        say(console, "champions, the last one first:")
    for move in reversed(moves):
        say(console, f"  {_describe_move(move)}")


def _local_time(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
