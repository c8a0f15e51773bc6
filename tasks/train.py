"""Stage 3: the network learns the levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import luigi

from pipeline import artifacts
from pipeline.config import Settings
from pipeline.downloads import here
from pipeline.members import member_name, of_member
from tasks.clean import CleanTags
from tasks.features import BuildFeatures
from tasks.plan import PlanRun, PublishedModel
from tasks.stage import Stage


class TrainModel(Stage):
    """Publish parameters.h5, network.json, history.csv, probe.h5 and training.json of one member of the ensemble."""

    stage = "train"
    member = luigi.IntParameter(
        default=1, significant=False, positional=False, description="which network of [training] members, from 1"
    )

    @classmethod
    def stage_of(cls, values: dict[str, Any]) -> str:
        """Return the name of the member's fingerprint."""
        return member_name(values["member"])

    @property
    def settings(self) -> Settings:
        """Return the settings of the member, with a seed of its own."""
        return of_member(self.identity.settings, self.member)

    @property
    def title(self) -> str:
        """Return what the task is called on screen: with its number where there are several."""
        several = self.settings.training.members > 1
        return f"{super().title} {self.member}" if several else super().title

    def requires(self) -> dict[str, Any]:
        """Return plan, features, and the model to start from.

        And the items to score, so that what is wrong with them is told before training.
        """
        found = {
            "plan": self.same_run(PlanRun, "plan"),
            "clean": self.same_run(CleanTags, "clean"),  # The taxonomy says which class stands above which.
            "features": self.same_run(BuildFeatures, "features"),
        }
        if self.scores_another_catalog:
            found["scored"] = self.same_run(CleanTags, "scored", role="scoring")
        if self.identity.choice.start is not None:
            found["start"] = self.same_run(PublishedModel, "start")
        return found

    def facts(self) -> dict[str, Any]:
        """Return the facts of every stage, and the model that training started from, by fingerprint or SHA-256."""
        named = [file.digest for file in self.identity.inputs.get("start", ())]
        return {**super().facts(), "start": self.identity.choice.start or next(iter(named), None)}

    def run(self) -> None:
        """Train on the shards of the features."""
        from pipeline.model import load_model
        from pipeline.training import train

        features, start = self.read("features"), self.start()
        taxonomy = self.read("clean") / "taxonomy.json"
        earlier = None if start is None else load_model(start)
        self.publish(
            lambda folder, progress: train(
                self.settings,
                features,
                folder,
                taxonomy=taxonomy,
                start=earlier,
                member=self.member,
                work=self.work,
                progress=progress,
            )
        )

    def start(self) -> Path | None:
        """Return the model file that training starts from, as it was when the run was planned; None for none."""
        chosen = self.identity.choice.start
        if chosen is not None:
            return self.patiently(lambda: artifacts.verified(self.root / "export" / chosen, "model.h5"))
        files = self.identity.inputs.get("start", ())
        return artifacts.unchanged(Path(here(files[0].path)), files[0].digest or "") if files else None
