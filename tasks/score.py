"""Stage 5, the main job: every item of the catalog gets its path."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import luigi

from pipeline import artifacts, pointers, retention, summary
from pipeline.errors import ArtifactError
from pipeline.progress import Progress
from tasks import config
from tasks.changes import publish_changes
from tasks.clean import CleanTags
from tasks.drift import CheckDrift
from tasks.export import ExportModel
from tasks.gate import CheckModel, refusal
from tasks.plan import PlanRun, PublishedModel
from tasks.report import try_report
from tasks.stage import Stage
from tasks.targets import PointerTarget


class ScoreCatalog(Stage):
    """Publish the scores, and point the date and, unless a later date is published, `latest` to them."""

    stage = "score"
    _pointed = False  # whether this process has pointed the date to this run

    def complete(self) -> bool:
        """Return whether the results are published and pointed to: also where a run of other settings has since.

        A plan that got lost is made anew.
        """
        return self._pointed or (bool(super().complete()) and self.same_run(PlanRun, "plan").complete())

    def requires(self) -> dict[str, Any]:
        """Return the plan, the leave to go on, the model, the verdict on a new one, and the clean items to score."""
        role, trains = "scoring" if self.scores_another_catalog else "training", self.identity.choice.model is None
        found = {
            "plan": self.same_run(PlanRun, "plan"),
            "drift": self.same_run(CheckDrift, "plan"),
            "export": self.same_run(ExportModel if trains else PublishedModel, "export"),
            "scored": self.same_run(CleanTags, "scored", role=role),
        }
        return found | ({"gate": self.same_run(CheckModel, "plan")} if trains and self.settings.gate.enabled else {})

    def output(self) -> Any:
        """Return the published directory and the pointer of the date."""
        return [self.directory(), PointerTarget(pointers.of_date(self.root, str(self.date)), self.fingerprint)]

    def run(self) -> Iterator[Any]:
        """Score with the new model; where that was refused, with the last accepted one, and fail all the same."""
        verdict = self.verdict()
        if verdict is not None and not verdict["accepted"]:
            last = verdict["last_accepted_model"]
            there = last is not None and artifacts.exists(self.root / "export" / last)
            if there:
                yield ScoreCatalog(date=self.date, fingerprint=self.with_last_accepted())
            raise refusal(verdict, self.requires()["gate"].folder / "verdict.json", scored=there)
        self.score()

    def verdict(self) -> dict[str, Any] | None:
        """Return what the gate says of a new model; None where there is none, or no gate."""
        if "gate" not in self.requires():
            return None
        found: dict[str, Any] = json.loads((self.read("gate") / "verdict.json").read_text("utf-8"))
        return found

    def score(self) -> None:
        """Score, unless an earlier date had the same inputs and settings; point; tell how it went."""
        self.publish(self.scorer())
        artifacts.sweep(self.root)
        changes = self.patiently(lambda: publish_changes(self, self.pointer().plan)) or self.known_changes()
        pointer = replace(self.pointer(), changes=changes)
        if self.settings.report.enabled:
            pointer = replace(pointer, report=try_report(self, self.root, pointer, self.settings.report))
        self.patiently(lambda: pointers.point(self.root, pointer))
        self._pointed = True
        scored = self.cleaned("scored")
        clean = self.cleaned("clean") if "clean" in self.identity.fingerprints else scored
        print(summary.closing(self.root, pointer, clean=clean, scored=scored, reason=self.identity.choice.reason))
        self.sweep()

    def scorer(self) -> Callable[[Path, Progress], None]:
        """Return what scores the clean items into a directory: this machine, or Spark."""
        export, scored = self.read("export"), self.read("scored")
        if not self.settings.gate.enabled:
            from pipeline.gate import require_agreement

            require_agreement(export)
        model = export / "model.h5"
        if self.settings.scoring.engine == "spark":
            from tasks.spark import run_on_spark

            paths = {"model_file": model, "clean_folder": scored}
            return partial(run_on_spark, self.settings, "score", paths=paths, run=self.fingerprint)
        from pipeline.score_catalog import Effort, score

        effort = Effort(sharing=config.luigi_workers())  # as many tasks may work at once
        return lambda folder, progress: score(
            self.settings, model, scored, folder, run=self.fingerprint, progress=progress, effort=effort
        )

    def sweep(self) -> None:
        """Remove what [storage] keep_runs does not keep; what is published is published also where that fails."""
        try:
            removed = retention.clean(self.root, keep_runs=self.settings.storage.keep_runs)
        except (ArtifactError, OSError) as error:
            print(f"clean: nothing more was removed: {error}", file=sys.stderr)
            return
        if any(not found.path.startswith("work/") for found in removed):
            print(retention.told(removed))

    def cleaned(self, name: str) -> Path:
        """Return the directory of one of the two cleanings, the same twice where one catalog is all there is."""
        return self.root / "clean" / self.identity.of(name)

    def known_changes(self) -> str | None:
        """Return the changes that the date's pointer names for this run; a plan that was made anew knows of none."""
        with suppress(ArtifactError):
            known = pointers.read(pointers.of_date(self.root, str(self.date)))
            if known is not None and known.run == self.fingerprint and known.changes is not None:
                return known.changes if artifacts.exists(self.root / known.changes) else None
        return None

    def pointer(self) -> pointers.Pointer:
        """Return what the pointer of the date says."""
        prints = self.identity.fingerprints
        return pointers.Pointer(
            date=str(self.date),
            run=self.fingerprint,
            folder=f"{self.stage}/{self.fingerprint}",
            model=prints["export"],
            plan=f"plan/{self.date}-{prints['plan']}.json",
        )

    @classmethod
    def bulk_complete(cls, dates: Iterable[datetime.date]) -> list[datetime.date]:
        """Return the dates for which anything is published: RangeDaily fills gaps and leaves the past alone."""
        with config.mistakes_end_the_command():
            root = config.opened(config.load().storage)
            gone = pointers.removed(root)
        return [date for date in dates if str(date) in gone or pointers.of_date(root, str(date)).exists()]


@ScoreCatalog.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def tell_done(task: ScoreCatalog) -> None:
    """Say that there is nothing to do."""
    print(summary.nothing_to_do(task.root, task.pointer()))
