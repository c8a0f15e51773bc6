"""Why a stage would run: its facts of today beside those that the manifest of an earlier run has.

Facts are what a manifest says of where results come from: settings, version, upstreams, input files.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import exists, manifest
from pipeline.errors import ArtifactError
from pipeline.manifests import versions
from pipeline.pointers import Pointer

# What every directory has for itself, and what no result depends on.
OWN = {"stage", "fingerprint", "origin", "format", "files", "versions", "seconds", "role"}
STATES = {True: "runs: ", False: "complete", None: "is known when the run of this date is planned"}
HEX = 12  # digits of a digest that are shown


@dataclass(frozen=True)
class Wanted:
    """A stage of the run that is asked about."""

    stage: str  # as people know it
    name: str  # what its fingerprint is called: clean, train_2 ...
    folder: Path
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Reason:
    """One thing that has changed."""

    what: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return (
            self.what
            if self.old is None and self.new is None
            else f"{self.what} {_show(self.old)} -> {_show(self.new)}"
        )


@dataclass(frozen=True)
class Explained:
    """Whether a stage would run, and why."""

    stage: str
    runs: bool | None  # None: that is known when the run of the date is planned
    reasons: tuple[Reason, ...] = field(default=())


def explain(
    wanted: Sequence[Wanted], root: Path, last: Pointer | None, *, invalidated: Container[str]
) -> list[Explained]:
    """Return for each stage, in their order, why it would run, compared with the run that `last` names."""
    earlier = {} if last is None else fingerprints_of(root, last)
    names = {stage.folder.name: stage.stage for stage in wanted}
    runs: set[str] = set()
    found = []
    for stage in wanted:
        if exists(stage.folder):
            found.append(Explained(stage.stage, runs=False))
            continue
        if not stage.facts:
            found.append(Explained(stage.stage, runs=None))
            continue
        runs.add(stage.folder.name)
        before = _before(root, stage, earlier)
        running = {name: names[name] for name in runs}
        reasons = tuple(_reasons(stage, before, invalidated, running, set(earlier.values())))
        found.append(Explained(stage.stage, True, reasons))
    return found


def lines(found: Sequence[Explained]) -> list[str]:
    """Return a line a stage, and one for each further reason.

    >>> both = (Reason("x", 1, 2), Reason("A runs", None, None))
    >>> print("\\n".join(lines([Explained("A", False), Explained("B", True, both)])))
    A  complete
    B  runs: x 1 -> 2
             A runs
    """
    width = max(len(each.stage) for each in found)
    told = []
    for each in found:
        first, *others = [str(reason) for reason in each.reasons] or [""]
        told.append(f"{each.stage:<{width}}  {STATES[each.runs]}{first}")
        told += [f"{'':<{width + 8}}{reason}" for reason in others]
    return told


def fingerprints_of(root: Path, run: Pointer) -> dict[str, str]:
    """Return the fingerprints of the stages of a run by name, as far as their directories stand."""
    known = {"score": run.run, "export": run.model}
    for name in ("score", "export"):
        known |= _manifest(root / name / known[name]).get("upstreams", {})
    return known


def changed_versions(folder: Path) -> list[Reason]:
    """Return the libraries that have another version than when the directory was made; no stage runs for them."""
    then, now = _manifest(folder).get("versions", {}), versions()
    return [
        Reason(name, then.get(name), now.get(name)) for name in sorted({*then, *now}) if then.get(name) != now.get(name)
    ]


def _before(root: Path, stage: Wanted, earlier: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the manifest of the same stage in the earlier run; of a check between stages that of the last one made."""
    folder = stage.folder.parent
    if stage.name in earlier:
        return _manifest(folder / earlier[stage.name])
    made = [path for path in folder.glob("*") if exists(path)] if earlier else []
    return _manifest(max(made, key=lambda path: path.stat().st_mtime_ns)) if made else {}


def _reasons(
    stage: Wanted,
    before: Mapping[str, Any],
    invalidated: Container[str],
    running: Mapping[str, str],
    earlier: Container[str],
) -> Iterator[Reason]:
    if stage.folder.exists():
        yield Reason("its directory is damaged: a file is missing, or not of its size", None, None)
    elif stage.folder.name in earlier:
        yield Reason("its directory is gone", None, None)
        return
    if not before:
        yield Reason("it has no results to compare with", None, None)
        return
    if before["fingerprint"] in invalidated:
        yield Reason("it was invalidated", None, None)
    then = {name: value for name, value in before.items() if name not in OWN}
    now = {name: value for name, value in stage.facts.items() if name not in OWN}
    yield from _files(then.pop("inputs", {}), now.pop("inputs", {}))
    one, other = _flat(then), _flat(now)
    for name in sorted({*one, *other}):
        old, new = one.get(name), other.get(name)
        if old == new:
            continue
        if name.startswith("upstreams.") and new is not None and new in running:
            yield Reason(f"{running[new]} runs", None, None)
        else:
            yield Reason(_title(name), old, new)


def _files(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Reason]:
    """Give the input files that are others; one that has only another name is the same, unless its kind is another."""
    for path in sorted({*then, *now}):
        if path in then and path in now:
            if then[path] != now[path]:
                yield Reason(f"file {path}", then[path], now[path] or "absent")
        elif path in now:
            if now[path] not in then.values() or {Path(path).suffix} != {
                Path(old).suffix for old, digest in then.items() if digest == now[path]
            }:
                yield Reason(f"file {path} is new:", "none", now[path] or "absent")
        elif then[path] not in now.values():
            yield Reason(f"file {path} is read no more:", then[path], "none")


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested facts under dotted names.

    >>> _flat({"settings": {"training": {"epochs": 5}}, "stage_version": 2})
    {'settings.training.epochs': 5, 'stage_version': 2}
    """
    found: dict[str, Any] = {}
    for name, value in facts.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _title(name: str) -> str:
    """Return what people call a fact.

    >>> _title("settings.training.epochs"), _title("upstreams.clean"), _title("stage_version")
    ('[training] epochs', 'upstream clean', "version of the stage's code")
    """
    parts = name.split(".")
    if parts[0] == "settings" and len(parts) == 3:
        return f"[{parts[1]}] {parts[2]}"
    known = {
        "stage_version": "version of the stage's code",
        "start": "model to start from",
        "model": "model used again",
    }
    return known.get(name, " ".join(parts).replace("upstreams", "upstream"))


def _show(value: Any) -> str:
    """Return a value as it is shown; digests are cut.

    >>> _show("0" * 64), _show(None), _show(("a", "b")), _show(True), _show("")
    ('000000000000', 'none', 'a, b', 'true', "''")
    """
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "''"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:HEX] if digest else text or "''"


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return manifest(folder)
    except ArtifactError:
        return {}
