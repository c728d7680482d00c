"""A decision as Markdown, for people: the verdict, every condition, and the recall of each class."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.errors import quoted
from pipelines.gate.decide import Decision


def render_decision(decision: Decision) -> str:
    """The decision as a heading and tables."""
    verdict = "promoted" if decision.promote else "not promoted: the champion stays"
    lines = [f"# {verdict[0].upper()}{verdict[1:]}", ""]
    lines += _table(
        ("", "condition", "numbers"),
        (("✓" if check.passed else "✗", check.name, check.text) for check in decision.checks),
    )
    if decision.comparison is not None:
        rows = (
            (quoted(name), str(own.support), f"{own.champion_recall:.3f}", f"{own.challenger_recall:.3f}")
            for name, own in decision.comparison.per_class.items()
        )
        lines += ["", *_table(("class", "test images", "champion's recall", "challenger's recall"), rows)]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [_row(head), _row(("---",) * len(head)), *map(_row, rows)]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
