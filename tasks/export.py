"""Stage 4: the trained network becomes one file that scores raw tags."""

from __future__ import annotations

from typing import Any

from tasks.clean import CleanTags
from tasks.features import BuildFeatures
from tasks.plan import PlanRun
from tasks.stage import Stage
from tasks.train import TrainModel


class ExportModel(Stage):
    """Publish model.h5 and evaluation.json."""

    stage = "export"

    def requires(self) -> dict[str, Any]:
        """Return the plan and the three stages that the model file is put together from."""
        return {
            "plan": self.same_run(PlanRun, "plan"),
            "clean": self.same_run(CleanTags, "clean"),
            "features": self.same_run(BuildFeatures, "features"),
            "train": self.same_run(TrainModel, "train"),
        }

    def run(self) -> None:
        """Put the model together, check it against the engine and evaluate it."""
        from pipeline.export import export

        clean, features, train = self.read("clean"), self.read("features"), self.read("train")
        self.publish(
            lambda folder, _: export(self.settings, clean, features, train, folder, provenance=self.provenance())
        )

    def provenance(self) -> dict[str, Any]:
        """Return where the model comes from, for the model file; the same for the same model wherever it is made."""
        digests = sorted(file.digest or "" for file in self.identity.inputs["training"])
        return {"fingerprint": self.fingerprint, "upstreams": self.facts()["upstreams"], "inputs": digests}
