"""All that a report holds, by the names that template.html reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from pipeline.artifacts import verified
from pipeline.changes import COUNTS
from pipeline.config_nights import ReportSettings
from pipeline.judging import Right
from pipeline.model import Model, load_model
from pipeline.report import held_out, learning, nights, quality, scored, tags
from pipeline.report.charts import STEPS, Chart
from pipeline.report.headline import Card, Verdict, accuracy_table, cards_of, verdict_of
from pipeline.report.held_out import HeldOut, Pair
from pipeline.report.scored import Item
from pipeline.report.sources import Run
from pipeline.report.tables import Table


@dataclass(frozen=True, eq=False)
class Contents:
    """A report before it is a page. What there is nothing to tell of is None or empty."""

    run: Run
    verdict: Verdict
    cards: list[Card]
    accuracy: Table | None
    learning: list[Chart]
    members: Table | None
    tree: Chart
    compared: str  # which items the model before was asked about, or why it was not
    changes: list[Table]
    moved: list[Table]
    confusion: Chart | None
    pairs: Mapping[str, tuple[Pair, ...]]
    suspects: tuple[Item, ...]
    rejects: Table | None
    calibration: list[Chart]
    confidence: Chart
    unsure: tuple[Item, ...]
    tags: list[Table]
    telling: Table | None
    experts: list[Chart]
    times: Chart
    details: list[tuple[str, str]]  # for the fold-out: a title and a text
    n_examples: int  # rows of a list of items that are shown

    @property
    def steps(self) -> list[tuple[int, int, str]]:
        """Return from, to (percent) and colour of the steps of accuracy in the tree of labels."""
        width = 100 // len(STEPS)
        return [(k * width, (k + 1) * width, colour) for k, colour in enumerate(STEPS)]

    @property
    def version(self) -> str:
        """Return the version of this project."""
        return version("tagladder")


def contents(run: Run, settings: ReportSettings) -> Contents:
    """Return what there is to tell of a run."""
    model = load_model(verified(run.export, "model.h5"))
    found = scored.count(
        run.score, run.scored, model.taxonomy.levels, n_unsure=settings.examples, n_suspects=settings.max_review
    )
    asked = held_out.ask(model, run.clean)
    compared, why = _against_last(run, model, asked)
    changes = run.read("changes", COUNTS)
    return Contents(
        run=run,
        verdict=verdict_of(run),
        cards=cards_of(run, changes, compared),
        accuracy=accuracy_table(run, compared),
        learning=learning.curves(run, model.taxonomy.levels),
        members=learning.members(run),
        tree=quality.tree(found, asked),
        compared=why,
        changes=nights.changed(run, changes),
        moved=nights.moved(run, found),
        confusion=None if asked is None else quality.confusion(asked),
        pairs={} if asked is None else asked.pairs(),
        suspects=found.suspects,
        rejects=nights.rejected(run),
        calibration=[] if asked is None else quality.calibration(asked),
        confidence=quality.confidence(found),
        unsure=found.unsure,
        tags=[] if run.scored is None else tags.tables(model, run.scored, most=settings.examples),
        telling=tags.telling_table(model),
        experts=learning.experts(run),
        times=nights.times(run),
        details=nights.details(run),
        n_examples=settings.examples,
    )


def _against_last(run: Run, model: Model, asked: HeldOut | None) -> tuple[tuple[Right, Right] | None, str]:
    """Return which labels this model and the one accepted before get right, and in words what was compared."""
    if asked is None:
        return None, "No labelled items are held out, so that no model can be compared."
    last = run.plan.get("last_accepted_model")
    if last is None:
        return None, "No model was accepted before this one."
    if last == run.pointer.model:
        return None, "The same model has scored as before."
    if run.last_export is None:
        return None, f"The model accepted before, {last[:12]}, is there no more."
    found = held_out.compare(model, load_model(verified(run.last_export, "model.h5")), asked)
    if found is None:
        return None, f"The model accepted before, {last[:12]}, cannot be asked about the items of today."
    words = f"Changes compare with model {last[:12]}, on the same {asked.n_items:,} held-out items of today."
    return found, words
