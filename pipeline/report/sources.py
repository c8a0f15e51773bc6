"""The directories that a published run is told from, found by its pointer and the manifests alone.

So the report of any run that still stands can be made, whatever the settings are now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.artifacts import at_hand, exists, manifest, verified
from pipeline.errors import ArtifactError
from pipeline.plans import read_plan
from pipeline.pointers import Pointer
from pipeline.verification import published

STAGES = ("clean", "drift", "features", "train", "export", "gate", "score", "changes")  # in the order that they run


@dataclass(frozen=True)
class Run:
    """A published run. A directory that is gone, or never was, is None."""

    pointer: Pointer
    plan: dict[str, Any]  # empty where it is gone
    score: Path
    scored: Path | None  # the clean items that were scored
    clean: Path | None  # those that the model learned from, or what stands in their place today
    training: tuple[Path, ...]  # of the members, those that are there
    export: Path
    gate: Path | None
    drift: Path | None
    changes: Path | None
    last_export: Path | None  # of the model that was accepted before
    last_score: Path | None  # of the run that was published before

    @classmethod
    def of(cls, root: Path, pointer: Pointer) -> Run:
        """Return the run of a pointer; raises ArtifactError where its scores or its model are gone."""
        score, export = root / pointer.folder, root / "export" / pointer.model
        upstreams, made_from = manifest(score)["upstreams"], manifest(export)["upstreams"]
        plan = _plan(root / pointer.plan)
        stages = plan.get("stages", {})
        last_model, last_run = plan.get("last_accepted_model"), plan.get("last_published_run")
        names = [name for name in made_from if name.startswith("train")]
        return cls(
            pointer=pointer,
            plan=plan,
            score=score,
            scored=_there(root, "clean", upstreams["scored"]),
            clean=_there(root, "clean", stages.get("clean", made_from["clean"])),
            training=tuple(folder for name in names if (folder := _there(root, "train", made_from[name]))),
            export=export,
            gate=_judged(root, stages.get("export"), last_model),
            drift=_compared(root, {stages.get("clean"), stages.get("scored")}, last_run),
            changes=None if pointer.changes is None else _there(root, *pointer.changes.split("/")),
            last_export=_there(root, "export", last_model),
            last_score=_there(root, "score", last_run),
        )

    def read(self, stage: str, name: str) -> dict[str, Any] | None:
        """Return a JSON file of a stage, None where the stage is not there; raises ArtifactError if it is damaged."""
        folder = getattr(self, stage)
        if folder is None or name not in manifest(folder)["files"]:
            return None
        content: dict[str, Any] = json.loads(verified(folder, name).read_text("utf-8"))
        return content

    @cached_property
    def manifests(self) -> dict[str, dict[str, Any]]:
        """Return the manifests of the stages that are there, in the order that they run."""
        members = {folder.name for folder in self.training}
        folders: dict[str, Path | None] = {stage: getattr(self, stage, None) for stage in STAGES}
        if self.scored != self.clean:
            folders = {"clean": self.clean, "clean (to score)": self.scored} | folders
        made = {stage: manifest(folder) for stage, folder in folders.items() if folder is not None}
        trained = [manifest(folder) for folder in self.training]
        for number, facts in enumerate(trained, start=1):
            made["train" if len(members) == 1 else f"train {number}"] = facts
        order = {stage: place for place, stage in enumerate(STAGES)}
        return dict(sorted(made.items(), key=lambda found: order[found[0].split(" ")[0]]))


def _plan(path: Path) -> dict[str, Any]:
    try:
        return read_plan(path) or {}
    except ArtifactError:
        return {}


def _there(root: Path, stage: str, name: str | None) -> Path | None:
    """Return the directory of a stage where it stands, brought here where a store has it."""
    return at_hand(root / stage / name) if name is not None and exists(root / stage / name) else None


def _facts(root: Path, stage: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give the directories of a stage with their manifests, those that can be read."""
    for folder in published(root):
        if folder.parent.name == stage and exists(folder):
            yield at_hand(folder), manifest(folder)


def _judged(root: Path, model: str | None, last: str | None) -> Path | None:
    """Return the verdict on a model beside the last accepted one; of several, by other settings, the newest."""
    found = [
        folder
        for folder, facts in _facts(root, "gate")
        if facts["upstreams"]["export"] == model and facts["baseline"] == last
    ]
    return max(found, key=lambda folder: folder.stat().st_mtime_ns, default=None)


def _compared(root: Path, cleanings: set[str | None], last: str | None) -> Path | None:
    """Return where the clean catalogs were compared with those of the last published run."""
    found = [
        folder
        for folder, facts in _facts(root, "drift")
        if set(facts["upstreams"].values()) <= cleanings and facts["baseline"] == last
    ]
    return max(found, key=lambda folder: folder.stat().st_mtime_ns, default=None)
