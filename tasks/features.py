"""Stage 2: clean tags become a vocabulary, a tag index and sparse features."""

from __future__ import annotations

from functools import partial
from typing import Any

from tasks.clean import CleanTags
from tasks.drift import CheckDrift
from tasks.plan import PlanRun
from tasks.stage import Stage


class BuildFeatures(Stage):
    """Publish vocabulary.parquet, transform.h5 and the shards features-NNNNN.h5."""

    stage = "features"

    def requires(self) -> dict[str, Any]:
        """Return the plan, the leave to go on, and the clean items."""
        return {
            "plan": self.same_run(PlanRun, "plan"),
            "drift": self.same_run(CheckDrift, "plan"),
            "clean": self.same_run(CleanTags, "clean"),
        }

    def run(self) -> None:
        """Fit the transform on the training items and apply it to the labelled ones."""
        clean = self.read("clean")
        if self.settings.features.engine == "spark":
            from tasks.spark import run_on_spark

            self.publish(partial(run_on_spark, self.settings, self.stage, paths={"clean_folder": clean}))
            return
        from pipeline.features import build

        self.publish(lambda folder, _: build(self.settings, clean, folder))
