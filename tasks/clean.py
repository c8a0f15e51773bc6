"""Stage 1: raw tags and labels become clean items and a taxonomy."""

from __future__ import annotations

from typing import Any

import luigi

from pipeline.inputs import Role
from tasks.plan import PlanRun
from tasks.stage import Stage


class CleanTags(Stage):
    """Publish items.parquet, rejects.parquet, taxonomy.json and statistics.json."""

    stage = "clean"
    role = luigi.ChoiceParameter(
        choices=["training", "scoring"],
        default="training",
        significant=False,
        positional=False,
        description="training: the files of [catalog]; scoring: those of [scoring]",
    )

    @classmethod
    def stage_of(cls, values: dict[str, Any]) -> str:
        """Return which of the two cleanings is meant."""
        return "scored" if values["role"] == "scoring" else "clean"

    def requires(self) -> dict[str, Any]:
        """Return the plan, which requires the input files."""
        return {"plan": self.same_run(PlanRun, "plan")}

    def run(self) -> None:
        """Clean the files of the role."""
        from pipeline.cleaning import clean

        self.publish(lambda folder, _: clean(self.settings, folder, expected=self.expected(), role=self.which_files()))

    def which_files(self) -> Role:
        """Return the role."""
        return "scoring" if self.role == "scoring" else "training"

    def expected(self) -> dict[str, str]:
        """Return the digests by path of the files of the role, as they were when the run began."""
        return self.identity.expected(self.which_files())

    def facts(self) -> dict[str, Any]:
        """Return the facts of every stage, and the input files."""
        return {**super().facts(), "inputs": self.expected()}
