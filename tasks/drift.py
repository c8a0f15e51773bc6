"""Between stages 1 and 2: a catalog that has moved too far since the last published run is held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.digests import fingerprint
from pipeline.identity import STAGE_VERSIONS, significant
from tasks.clean import CleanTags
from tasks.plan import PlanRun
from tasks.stage import Stage

NOT_PLANNED = "not-planned"  # the name of a directory that is never there


class CheckDrift(Stage):
    """Publish drift.json, or fail where a limit is passed; later stages wait for it and take nothing from it.

    Its parameters are those of the plan. Its directory is named by what it compares, so that a new date with
    unchanged inputs finds it done once it has been compared with itself.
    """

    stage = "drift"

    @classmethod
    def stage_of(cls, values: dict[str, Any]) -> str:
        """Return the plan: which run was the last one stands there."""
        return "plan"

    def requires(self) -> dict[str, Any]:
        """Return the plan and the clean catalogs."""
        return {"plan": self.same_run(PlanRun, "plan"), **self.cleanings()}

    def cleanings(self) -> dict[str, Any]:
        """Return the cleanings by role: of the catalog, unless only another one is needed, and of that to score."""
        found = {"clean": self.same_run(CleanTags, "clean")} if "clean" in self.identity.fingerprints else {}
        if "scoring" in self.identity.inputs:
            found["scored"] = self.same_run(CleanTags, "scored", role="scoring")
        return found

    @property
    def folder(self) -> Path:
        """Return the directory; before the plan is written there is none that could be there."""
        plan = self.same_run(PlanRun, "plan").output()
        if not plan.exists():
            return self.root / self.stage / NOT_PLANNED
        return self.root / self.stage / fingerprint({**self.parts(), "last_published_run": self.last_run()})

    def parts(self) -> dict[str, Any]:
        """Return what the result depends on, beside the last run."""
        upstreams = {name: task.fingerprint for name, task in self.cleanings().items()}
        settings = significant(self.settings, self.stage)
        return {"stage_version": STAGE_VERSIONS[self.stage], "settings": settings, "upstreams": upstreams}

    def last_run(self) -> str | None:
        """Return the last published run, as the plan has it."""
        plan = self.same_run(PlanRun, "plan").output()
        found: str | None = json.loads(plan.path.read_text("utf-8"))["last_published_run"]
        return found

    def run(self) -> None:
        """Compare."""
        from pipeline.drift import check_drift, find_baselines

        folders, run = {name: self.read(name) for name in self.cleanings()}, self.last_run()
        baselines = find_baselines(self.root, run, folders)
        self.publish(lambda folder, _: check_drift(self.settings.clean, folders, baselines, folder, run=run))

    def facts(self) -> dict[str, Any]:
        """Return what is compared."""
        return {"stage": self.stage, "fingerprint": self.folder.name, **self.parts(), "baseline": self.last_run()}
