"""Stage 4: the trained network becomes one file that scores raw tags."""

from __future__ import annotations

from typing import Any

from pipeline.members import member_names
from tasks.clean import CleanTags
from tasks.features import BuildFeatures
from tasks.plan import PlanRun
from tasks.stage import Dated, Stage
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
            **self.members(),
        }

    def members(self) -> dict[str, Dated]:
        """Return the tasks that train the members of the ensemble, by the names of their fingerprints."""
        names = enumerate(member_names(self.settings), start=1)
        return {name: self.same_run(TrainModel, name, member=number) for number, name in names}

    def run(self) -> None:
        """Put the model together, check it against the engine and evaluate it; the gate judges how far they agree."""
        from pipeline.export import ANY, PARITY, export

        limit = ANY if self.settings.gate.enabled else PARITY
        clean, features = self.read("clean"), self.read("features")
        members = [self.read(name) for name in self.members()]
        self.publish(
            lambda folder, _: export(
                self.settings, clean, features, members, folder, provenance=self.provenance(), limit=limit
            )
        )

    def facts(self) -> dict[str, Any]:
        """Return the facts of every stage, and what the model was made of, for the choice of later runs."""
        identity, start = self.identity, self.identity.choice.start
        origin = {"date": str(self.date), "recipe": identity.recipe, "basis": identity.basis, "start": start}
        return {**super().facts(), "origin": origin}

    def provenance(self) -> dict[str, Any]:
        """Return where the model comes from, for the model file; the same for the same model wherever it is made."""
        digests = sorted(file.digest or "" for file in self.identity.inputs["training"])
        return {"fingerprint": self.fingerprint, "upstreams": self.facts()["upstreams"], "inputs": digests}
