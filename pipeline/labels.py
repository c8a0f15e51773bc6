"""Stage 1: are the labels of a row a path? Stops are carried down; what is no path gets a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.taxonomy import Taxonomy

NOT_DECLARED = "is not in the taxonomy"


@dataclass(frozen=True)
class CheckedLabels:
    """Labels as they go on, and why a row cannot."""

    columns: tuple[Any, ...]  # a string array a level; null is unknown; stops stand down to the last level
    reasons: Any  # string array; null where the labels are a path


def check_labels(
    levels: Sequence[str], columns: Sequence[Any], *, stop_label: str, taxonomy: Taxonomy | None = None
) -> CheckedLabels:
    """Return the labels trimmed, empty ones as null, stops carried down, and a reason for every row that is no path.

    No path is: a label below an unknown one, another label below a stop, and, where a taxonomy is declared,
    a label that it does not have.

    >>> columns = [pa.array(["x", None, "-"]), pa.array(["y", "y", ""])]
    >>> check_labels(("a", "b"), columns, stop_label="-").reasons[1].as_py()
    'level-2 label (b) without a level-1 label'
    """
    checked = [_tidy(columns[0])]
    stopped = _equals(checked[0], stop_label)
    reasons = pa.nulls(len(checked[0]), pa.string())
    for level in range(1, len(levels)):
        label, place = _tidy(columns[level]), f"level-{level + 1} label ({levels[level]})"
        orphan = pc.and_(pc.is_valid(label), pc.is_null(checked[-1]))
        goes_on = pc.and_(pc.and_(stopped, pc.is_valid(label)), pc.invert(_equals(label, stop_label)))
        reasons = _first(reasons, orphan, f"{place} without a level-{level} label")
        reasons = _first(reasons, goes_on, f"{place} below the stop label")
        checked.append(pc.if_else(pc.and_(stopped, pc.is_null(label)), stop_label, label))
        stopped = pc.or_(stopped, _equals(checked[-1], stop_label))
    if taxonomy is not None:
        codes = taxonomy.encode(checked)
        for level, label in enumerate(checked):
            unknown = pc.and_(pc.is_valid(label), pa.array(codes[:, level] < 0))
            reasons = _first(reasons, unknown, f"level-{level + 1} label ({levels[level]}) {NOT_DECLARED}")
    return CheckedLabels(tuple(checked), reasons)


def _tidy(column: Any) -> Any:
    """Return labels without blanks around them; an empty one is null."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    trimmed = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    return pc.if_else(_equals(trimmed, ""), None, trimmed)


def _equals(column: Any, value: str) -> Any:
    return pc.fill_null(pc.equal(column, value), False)


def _first(reasons: Any, wrong: Any, reason: str) -> Any:
    """Return the reasons with this one where it applies and none stands yet."""
    return pc.if_else(pc.and_(wrong, pc.is_null(reasons)), reason, reasons)
