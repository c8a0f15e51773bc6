"""Between stages 4 and 5: a new model that is worse than the last accepted one does not score."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ModelError
from tasks.clean import CleanTags
from tasks.export import ExportModel
from tasks.plan import AgainstPlan, PlanRun


class CheckModel(AgainstPlan):
    """Publish verdict.json; a refused model stays, and stage 5 scores with the last accepted one."""

    stage = "gate"
    frozen = "last_accepted_model"

    def requires(self) -> dict[str, Any]:
        """Return the plan, the model, the clean items, and those to score."""
        role = "scoring" if self.scores_another_catalog else "training"
        return {
            "plan": self.same_run(PlanRun, "plan"),
            "export": self.same_run(ExportModel, "export"),
            "clean": self.same_run(CleanTags, "clean"),
            "scored": self.same_run(CleanTags, "scored", role=role),
        }

    def compared(self) -> dict[str, str]:
        """Return the model and the clean items."""
        return {name: self.identity.of(name) for name in ("export", "clean", "scored")}

    def parts(self) -> dict[str, Any]:
        """Return what the verdict depends on: of the model that is let through only whether it is this one."""
        accept = self.settings.gate.accept
        return {**super().parts(), "by_hand": bool(accept) and self.identity.of("export").startswith(accept)}

    def run(self) -> None:
        """Judge."""
        from pipeline.gate import Material, judge

        last = self.last()
        material = Material(
            export=self.read("export"),
            clean=self.read("clean"),
            scored=self.read("scored"),
            last=None if last is None else self.root / "export" / last,
        )
        model = self.identity.of("export")
        self.publish(lambda folder, _: judge(self.settings.gate, material, folder, model=model))


def refusal(verdict: dict[str, Any], place: object, *, scored: bool) -> ModelError:
    """Return the error that a refused model ends its run with; `scored` says that the last accepted one has scored."""
    model, last = verdict["model"][:12], (verdict["last_accepted_model"] or "")[:12]
    instead = f"the last accepted model {last} has scored instead" if scored else "nothing is published"
    worst, more = verdict["failed"][-1], len(verdict["failed"]) - 1
    others = f", and {more} more" if more else ""
    return ModelError(
        f"model {model} is refused: {worst}{others} ({verdict['compared']}); {instead}. See {place}; mend the catalog "
        f"or the settings, or let it through: --gate-accept {model}"
    )
