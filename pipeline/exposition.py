"""The ledger as Prometheus reads it: a text file for the collector of the node exporter, replaced after every stage.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4)
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import ledger
from pipeline.files import write_file
from pipeline.ledger import Entry

PREFIX = "tagladder"
REFUSED = "refused"  # what the reason of the gate begins with where a model does not score
MB = 1 << 20


def write(root: Path, path: Path) -> None:
    """Replace the text file at `path`; raises ArtifactError where ledger or file cannot be used."""
    text = render(ledger.entries(root))
    write_file(path, lambda temporary: temporary.write_text(text, "utf-8"), work=path.parent)


def render(entries: Sequence[Entry]) -> str:
    """Return the metrics of the last entry of every stage, and when scores were last published or found up to date.

    >>> print(render([Entry("r", "2026-11-23", "clean", "f", "2026-11-23T02:00:00+00:00", 2.5, 9, result="done")]))
    # HELP tagladder_stage_success Whether the stage was done the last time that it ran.
    # TYPE tagladder_stage_success gauge
    tagladder_stage_success{stage="clean"} 1
    # HELP tagladder_stage_finished_timestamp_seconds When that was.
    # TYPE tagladder_stage_finished_timestamp_seconds gauge
    tagladder_stage_finished_timestamp_seconds{stage="clean"} 1795399202.5
    # HELP tagladder_stage_duration_seconds How long it took.
    # TYPE tagladder_stage_duration_seconds gauge
    tagladder_stage_duration_seconds{stage="clean"} 2.5
    # HELP tagladder_stage_rows Items that it had.
    # TYPE tagladder_stage_rows gauge
    tagladder_stage_rows{stage="clean"} 9
    <BLANKLINE>
    """
    ended = [entry for entry in entries if entry.result != ledger.RUNNING]
    last = {entry.stage: entry for entry in ended if entry.result != ledger.PRESENT}
    lines: list[str] = []
    for name, meaning, values in _metrics(last):
        if values:
            labelled = [(f'{{stage="{_escaped(stage)}"}}', value) for stage, value in values.items()]
            lines += _family(name, meaning, labelled)
    if good := [entry for entry in ended if entry.stage == "score" and entry.result in (ledger.DONE, ledger.PRESENT)]:
        meaning = "When scores were last published, or found to be up to date."
        lines += _family("last_success_timestamp_seconds", meaning, [("", _finished(good[-1]))])
    if "gate" in last:
        accepted = not last["gate"].reason.startswith(REFUSED)
        lines += _family("model_accepted", "Whether the last new model was good enough to score.", [("", accepted)])
    return "\n".join([*lines, ""])


def _metrics(last: dict[str, Entry]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield name, meaning, and a value for every stage that has one."""
    done = {stage: float(entry.result == ledger.DONE) for stage, entry in last.items()}
    yield "stage_success", "Whether the stage was done the last time that it ran.", done
    finished = {stage: _finished(entry) for stage, entry in last.items()}
    yield "stage_finished_timestamp_seconds", "When that was.", finished
    took = {stage: entry.seconds for stage, entry in last.items() if entry.seconds is not None}
    yield "stage_duration_seconds", "How long it took.", took
    rows = {stage: float(entry.n_rows) for stage, entry in last.items() if entry.n_rows is not None}
    yield "stage_rows", "Items that it had.", rows
    peak = {stage: entry.peak_mb * MB for stage, entry in last.items() if entry.peak_mb is not None}
    yield "stage_peak_memory_bytes", "Largest resident set of its process.", peak


def _family(name: str, meaning: str, values: Sequence[tuple[str, float]]) -> list[str]:
    head = [f"# HELP {PREFIX}_{name} {meaning}", f"# TYPE {PREFIX}_{name} gauge"]
    return head + [f"{PREFIX}_{name}{labels} {float(value):.15g}" for labels, value in values]


def _finished(entry: Entry) -> float:
    return datetime.datetime.fromisoformat(entry.started).timestamp() + (entry.seconds or 0.0)


def _escaped(value: str) -> str:
    r"""Return the value of a label as the format wants it.

    >>> print(_escaped('a"b\\c'))
    a\"b\\c
    """
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
