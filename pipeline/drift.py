"""Between stages 1 and 2: how far has the catalog moved from that of the last published run, and is it too far?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.artifacts import exists, manifest, verified
from pipeline.config_catalog import CleanSettings
from pipeline.errors import ArtifactError, CatalogError

MAX_NAMED = 5  # tags and labels that are named
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Moved:
    """A measure, how large it is and how large it may be."""

    measure: str  # as the setting is called that limits it
    value: float
    limit: float
    text: str  # for people

    @property
    def too_far(self) -> bool:
        """Return whether the limit is passed."""
        return self.value > self.limit


def check_drift(
    clean: CleanSettings, folders: Mapping[str, Path], baselines: Mapping[str, Path], folder: Path, *, run: str | None
) -> None:
    """Write drift.json: how far each clean catalog, by role, is from the one of the last published run.

    `baselines` has the roles that can be compared. Raises CatalogError that says what moved where a limit of [clean] is
    passed, unless [clean] accept_drift.
    """
    compared = {role: compare(folders[role], baselines[role], clean) for role in baselines}
    held = [moved.text for found in compared.values() for moved in found if moved.too_far]
    if held and not clean.accept_drift:
        remedy = "Mend the files, raise the limit, or let it through once: --clean-accept-drift true"
        raise CatalogError(f"held: the catalog has moved since run {(run or '')[:12]}: {'; '.join(held)}. {remedy}")
    content = {
        "last_published_run": run,
        "compared": {role: [vars(moved) for moved in found] for role, found in compared.items()},
        "accepted": held,
    }
    (folder / "drift.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def find_baselines(root: Path, run: str | None, folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return by role the clean catalog of a published run that one of today can be compared with.

    None is where there was no run before, where its directories are gone, or where [catalog] or [clean] was set
    otherwise then: what moved would be the settings. A catalog is never its own baseline.
    """
    if run is None or not exists(root / "score" / run):
        return {}
    upstreams = manifest(root / "score" / run)["upstreams"]
    exported = root / "export" / upstreams["export"]
    known = {"clean": manifest(exported)["upstreams"]["clean"]} if exists(exported) else {}
    scored = root / "clean" / upstreams["scored"]
    if exists(scored):
        # The catalog itself, where no other one was scored; newer than the model's own where that was used again.
        role = "clean" if manifest(scored).get("role") == "training" else "scored"
        known[role] = scored.name
    found = {role: root / "clean" / known[role] for role in folders if role in known}
    return {role: path for role, path in found.items() if path != folders[role] and _comparable(path, folders[role])}


def compare(now: Path, before: Path, clean: CleanSettings) -> list[Moved]:
    """Return how far a clean catalog is from an earlier one, measure by measure."""
    tags, labels = _tags(now, before), _labels(now, before)
    n_now, n_before = (_statistics(folder)["n_items"] for folder in (now, before))
    change = abs(n_now - n_before) / max(1, n_before)
    found = [
        Moved("max_row_change", change, clean.max_row_change, f"items {n_before:,} -> {n_now:,} ({change:.0%})"),
        _unseen(*tags, limit=clean.max_unseen_share),
        _distance("max_tag_distance", "tags", *tags, limit=clean.max_tag_distance),
        _distance("max_label_distance", "labels", *labels, limit=clean.max_label_distance),
    ]
    return [
        Moved(moved.measure, moved.value, moved.limit, f"{moved.text}, [clean] {moved.measure} = {moved.limit:g}")
        for moved in found
    ]


def jensen_shannon(one: Counts, other: Counts) -> float:
    """Return the Jensen-Shannon distance of two frequencies of the same things, from 0 to 1; 0 where one is empty.

    The square root of the divergence, with logarithms to base 2. Source: Endres and Schindelin 2003.

    >>> jensen_shannon(np.array([1, 1]), np.array([2, 2])), jensen_shannon(np.array([1, 0]), np.array([0, 5]))
    (0.0, 1.0)
    """
    if not one.sum() or not other.sum():
        return 0.0
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(share > 0, share * np.log2(share / middle), 0).sum() for share in (p, q)]
    return float(np.sqrt(max(0.0, sum(parts) / 2)))


def _unseen(names: Sequence[str], now: Counts, before: Counts, *, limit: float) -> Moved:
    new = np.where(before == 0, now, 0)
    share = float(new.sum() / max(1, now.sum()))
    return Moved("max_unseen_share", share, limit, f"tags that it did not have {share:.0%}{_named(names, new)}")


def _distance(measure: str, what: str, names: Sequence[str], now: Counts, before: Counts, *, limit: float) -> Moved:
    distance = jensen_shannon(now, before)
    moved = now / max(1, now.sum()) - before / max(1, before.sum())
    order = np.argsort(-np.abs(moved), kind="stable")[:MAX_NAMED]
    shown = ", ".join(f"'{names[k]}' {before[k]:,} -> {now[k]:,}" for k in order if moved[k])
    return Moved(measure, distance, limit, f"distance of {what} {distance:.3f}" + (f" ({shown})" if shown else ""))


def _named(names: Sequence[str], counts: Counts) -> str:
    order = np.argsort(-counts, kind="stable")[:MAX_NAMED]
    shown = ", ".join(f"'{names[k]}' {counts[k]:,}" for k in order if counts[k])
    return f" ({shown})" if shown else ""


def _tags(now: Path, before: Path) -> tuple[list[str], Counts, Counts]:
    """Return all tags of both, sorted, and how many items carry each, (n_tags,)."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    tables = [pq.read_table(verified(folder, "tags.parquet"), columns=["tag", "n_items"]) for folder in (now, before)]
    names = pc.unique(pa.chunked_array([chunk for table in tables for chunk in table["tag"].chunks], pa.string()))
    counts = []
    for table in tables:
        known = np.zeros(len(names), np.int64)
        known[pc.index_in(table["tag"], names).to_numpy()] = table["n_items"].to_numpy()
        counts.append(known)
    return names.to_pylist(), counts[0], counts[1]


def _labels(now: Path, before: Path) -> tuple[list[str], Counts, Counts]:
    """Return the classes of all levels of both and how many items have each, (n_classes,)."""
    found = []
    for folder in (now, before):
        levels = _statistics(folder)["labels"].values()
        classes = (known for level in levels for known in level["classes"])
        found.append({" > ".join(known["path"]): known["items"] for known in classes})
    names = sorted({*found[0], *found[1]})
    counts = [np.array([known.get(name, 0) for name in names], np.int64) for known in found]
    return names, counts[0], counts[1]


def _statistics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(verified(folder, "statistics.json").read_text("utf-8"))
    return content


def _comparable(before: Path, now: Path) -> bool:
    try:
        one, other = manifest(before), manifest(now)
    except ArtifactError:
        return False
    same = ("settings", "stage_version")
    return exists(before) and all(one[name] == other[name] for name in same)
