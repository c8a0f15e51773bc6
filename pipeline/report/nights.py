"""A night beside the one before: what changed, what moved, what was rejected, how long it took, by what settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from pipeline.artifacts import verified
from pipeline.changes import FILE
from pipeline.report.charts import Chart, bars
from pipeline.report.scored import Scored, database, shown, tops
from pipeline.report.sources import Run
from pipeline.report.tables import Table

N_ROWS = 50  # of changes and rejects; all stand in their files

_MOVES = """
    SELECT path_before, path, count(*) FROM read_parquet($changes) WHERE change = 'path'
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT $most
"""
_CHANGED = """
    SELECT item_id::VARCHAR, title, path_before, path_probability_before, path, path_probability
    FROM read_parquet($changes) WHERE change = 'path' ORDER BY path_probability DESC, item_id LIMIT $most
"""


def changed(run: Run, counts: Mapping[str, Any] | None) -> list[Table]:
    """Return between which paths items moved, and the surest of them; nothing where there is no run before."""
    if counts is None or run.changes is None or not counts["path"]:
        return []
    parameters = {"changes": str(verified(run.changes, FILE)), "most": N_ROWS}
    with database() as connection:
        moves = connection.execute(_MOVES, parameters).fetchall()
        items = connection.execute(_CHANGED, parameters).fetchall()
    rows = [[shown(before), shown(now), n] for before, now, n in moves]
    named = [[title or name, shown(before), was, shown(now), is_] for name, title, before, was, now, is_ in items]
    columns = ["item", "before", "sure|share", "now", "sure now|share"]
    left = max(0, counts["path"] - len(named))
    caption = "Items with another path, the surest first" + (f"; {left:,} more in {FILE}" if left else "")
    return [
        Table.of("Paths that items moved between", ["before", "now", "items|count"], rows),
        Table.of(caption, columns, named),
    ]


def moved(run: Run, found: Scored) -> list[Table]:
    """Return how far the catalog has moved since the last published run, and how its predictions have."""
    tables = []
    drift = run.read("drift", "drift.json")
    for role, measures in (drift or {}).get("compared", {}).items():
        rows = [[each["text"], each["value"], each["limit"]] for each in measures]
        what = "catalog to score" if role == "scored" else "catalog"
        tables.append(Table.of(f"Drift of the {what}", ["what moved", "by|number", "limit|number"], rows))
    if run.last_score is not None and run.last_score != run.score:
        before = tops(run.last_score)
        now: dict[str, int] = {}
        for path, n in found.predicted.items():
            now[path[0]] = now.get(path[0], 0) + n
        names = sorted({*before, *now}, key=lambda name: (-abs(now.get(name, 0) - before.get(name, 0)), name))
        n_before, n_now = max(1, sum(before.values())), max(1, sum(now.values()))
        shares = {name: (before.get(name, 0) / n_before, now.get(name, 0) / n_now) for name in names}
        rows = [[name, *shares[name], shares[name][1] - shares[name][0]] for name in names]
        columns = ["top label", "before|share", "now|share", "moved|points"]
        tables.append(Table.of("Predicted top labels, beside the last published run", columns, rows))
    return tables


def rejected(run: Run) -> Table | None:
    """Return which rows were rejected, and why; None where none were."""
    if run.scored is None:
        return None
    table = pq.read_table(verified(run.scored, "rejects.parquet"))
    rows = [
        [row["scope"], row["reason"], f"{row['source']}:{row['line'] or ''}", row["raw"][:200]]
        for row in table.slice(0, N_ROWS).to_pylist()
    ]
    more = table.num_rows - len(rows)
    caption = "Rejected rows" + (f"; {more:,} more in rejects.parquet" if more else "")
    return Table.of(caption, ["what", "why", "where", "as it was read"], rows) if rows else None


def times(run: Run) -> Chart:
    """Return how long each stage took when it was made, which may have been on an earlier night."""
    seconds = {stage: facts["seconds"] for stage, facts in run.manifests.items()}
    table = Table.of("Duration of each stage", ["stage", "took|seconds"], list(seconds.items()))
    says = f"{sum(seconds.values()):,.0f} seconds in all, of which what has not changed was not spent again."
    return Chart("times", "Time of each stage", says, bars(seconds, x_title="seconds"), table)


def details(run: Run) -> list[tuple[str, str]]:
    """Return titles and texts for who wants to know exactly: settings, versions, fingerprints."""
    settings: dict[str, Any] = {}
    for facts in run.manifests.values():
        settings |= facts.get("settings", {})
    scored = run.manifests["score"]
    prints = {stage: facts["fingerprint"] for stage, facts in run.manifests.items()}
    evaluation = run.read("export", "evaluation.json") or {}
    return [
        ("Fingerprints", _text(prints)),
        ("Pointer", _text(vars(run.pointer))),
        ("Why this model", str(run.plan.get("choice", {}).get("reason", "unknown"))),
        ("Input files", _text(run.plan.get("inputs", {}))),
        ("Versions", _text(scored["versions"])),
        ("Settings that results depend on", _text(settings)),
        ("evaluation.json", _text(evaluation)),
    ]


def _text(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, default=str)
