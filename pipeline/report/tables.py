"""Tables of a report: columns that know how their values are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "count", "share", "points", "margin", "number", "seconds"]
Cell = str | float | int | None


@dataclass(frozen=True)
class Column:
    """A column: its name, and what its values are."""

    name: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """Rows below columns."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_left_out: int = 0  # rows that would follow

    @classmethod
    def of(cls, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, most: int = 2000) -> Table:
        """Return a table of at most so many rows; a column is written `name` or `name|kind`.

        >>> Table.of("tags", ["tag", "items|count"], [("robot", 3)]).columns[1]
        Column(name='items', kind='count')
        """
        made = tuple(_column(column) for column in columns)
        return cls(caption, made, tuple(map(tuple, rows[:most])), max(0, len(rows) - most))


def _column(text: str) -> Column:
    name, _, kind = text.partition("|")
    return Column(name, kind or "text")  # type: ignore[arg-type] # the callers' literals


def written(value: Cell, kind: Kind) -> str:
    r"""Return a value as it is read.

    >>> written(0.1234, "share"), written(-0.012, "points"), written(12345, "count"), written(None, "share")
    ('12.3%', '-1.2', '12,345', '\u2013')
    """
    if value is None:
        return "\u2013"  # a dash
    if isinstance(value, str):
        return value
    if kind == "share":
        return f"{value:.1%}"
    if kind == "points":
        return f"{value * 100:+.1f}"
    if kind == "margin":
        return f"{value * 100:.1f}"
    if kind == "count":
        return f"{value:,.0f}"
    return f"{value:.1f} s" if kind == "seconds" else f"{value:.3f}"
