"""Stage 3: the network learns the levels."""

from __future__ import annotations

from typing import Any

from tasks.features import BuildFeatures
from tasks.plan import PlanRun
from tasks.stage import Stage


class TrainModel(Stage):
    """Publish parameters.h5, network.json, history.csv, probe.h5 and training.json."""

    stage = "train"

    def requires(self) -> dict[str, Any]:
        """Return the plan and the features."""
        return {"plan": self.same_run(PlanRun, "plan"), "features": self.same_run(BuildFeatures, "features")}

    def run(self) -> None:
        """Train; checkpoints lie in the work directory until the stage is published."""
        from pipeline.training import train

        features = self.read("features")
        self.publish(lambda folder, progress: train(self.settings, features, folder, work=self.work, progress=progress))
