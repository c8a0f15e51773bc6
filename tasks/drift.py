"""Between stages 1 and 2: a catalog that has moved too far since the last published run is held."""

from __future__ import annotations

from typing import Any

from tasks.clean import CleanTags
from tasks.plan import AgainstPlan, PlanRun


class CheckDrift(AgainstPlan):
    """Publish drift.json, or fail where a limit is passed; later stages wait for it and take nothing from it."""

    stage = "drift"
    frozen = "last_published_run"

    def requires(self) -> dict[str, Any]:
        """Return the plan and the clean catalogs."""
        return {"plan": self.same_run(PlanRun, "plan"), **self.cleanings()}

    def cleanings(self) -> dict[str, Any]:
        """Return the cleanings by role: of the catalog, unless only another one is needed, and of that to score."""
        found = {"clean": self.same_run(CleanTags, "clean")} if "clean" in self.identity.fingerprints else {}
        if "scoring" in self.identity.inputs:
            found["scored"] = self.same_run(CleanTags, "scored", role="scoring")
        return found

    def compared(self) -> dict[str, str]:
        """Return the clean catalogs."""
        return {name: task.fingerprint for name, task in self.cleanings().items()}

    def run(self) -> None:
        """Compare."""
        from pipeline.drift import check_drift, find_baselines

        folders, run = {name: self.read(name) for name in self.cleanings()}, self.last()
        baselines = find_baselines(self.root, run, folders)
        self.publish(lambda folder, _: check_drift(self.settings.clean, folders, baselines, folder, run=run))
