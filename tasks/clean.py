"""Stage 1: raw tags and labels become clean items and a taxonomy."""

from __future__ import annotations

from functools import partial
from typing import Any

import luigi

from pipeline.inputs import Role
from tasks.plan import PlanRun, PublishedModel
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
        """Return the plan, which requires the input files, and the model that is used again, if one is."""
        found = {"plan": self.same_run(PlanRun, "plan")}
        if self.identity.choice.model is not None:
            found["model"] = self.same_run(PublishedModel, "export")
        return found

    def run(self) -> None:
        """Clean the files of the role; by the rules of the model where a published one is used again."""
        model = None if self.identity.choice.model is None else self.read("model") / "model.h5"
        expected, role = self.expected(), self.which_files()
        if self.settings.features.engine == "spark":
            from tasks.spark import run_on_spark

            paths = {} if model is None else {"model_file": model}
            run = partial(run_on_spark, self.settings, self.stage, paths=paths, expected=expected, role=role)
            self.publish(run)
            return
        from pipeline.cleaning import clean

        settings, lists = self.settings, None
        if model is not None:
            from pipeline.model import load_rules

            settings, lists = load_rules(model, settings)
        self.publish(lambda folder, _: clean(settings, folder, expected=expected, role=role, lists=lists))

    def which_files(self) -> Role:
        """Return the role."""
        return "scoring" if self.role == "scoring" else "training"

    def expected(self) -> dict[str, str]:
        """Return the digests by path of the files of the role, as they were when the run began."""
        return self.identity.expected(self.which_files())

    def facts(self) -> dict[str, Any]:
        """Return the facts of every stage, the input files, and the model whose rules were followed, if one was."""
        return {**super().facts(), "inputs": self.expected(), "role": self.role, "model": self.identity.choice.model}
