"""Stage 3: the network learns the levels."""

from __future__ import annotations

from typing import Any

from tasks.clean import CleanTags
from tasks.features import BuildFeatures
from tasks.plan import PlanRun
from tasks.stage import Stage


class TrainModel(Stage):
    """Publish parameters.h5, network.json, history.csv, probe.h5 and training.json."""

    stage = "train"

    def requires(self) -> dict[str, Any]:
        """Return plan and features; and the items to score, so that what is wrong with them is told before training."""
        scored = {"scored": self.same_run(CleanTags, "scored", role="scoring")} if self.scores_another_catalog else {}
        return {"plan": self.same_run(PlanRun, "plan"), "features": self.same_run(BuildFeatures, "features"), **scored}

    def run(self) -> None:
        """Train on the shards of the features."""
        from pipeline.training import train

        features = self.read("features")
        self.publish(lambda folder, progress: train(self.settings, features, folder, progress=progress))
