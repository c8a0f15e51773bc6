"""After stage 5: the report of a published run, one page that needs no network, for who looks at it the next morning.

    sources.py   the directories of the run
    scored.py    what stands in its scores: counts, confidence, items to look at
    held_out.py  the model, and the one accepted before, on labelled items that neither has learned from
    tags.py      which tags are frequent, telling, unseen
    review.py    labels that may be wrong, as a file for spreadsheets
    charts.py    figures of Plotly, as plain data
    contents.py  all of it by the names that template.html reads
    page.py      the page

It aggregates: what it holds grows with the taxonomy, not with the catalog.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config_nights import ReportSettings
from pipeline.pointers import Pointer

PAGE, REVIEW = "report.html", "labels_to_review.csv"


def make_report(root: Path, pointer: Pointer, folder: Path, settings: ReportSettings) -> None:
    """Write report.html and labels_to_review.csv of a published run into a folder.

    Raises ArtifactError where something that the run was made from is damaged; what retention has removed since is
    left out, and the page says so.
    """
    from pipeline.report.contents import contents
    from pipeline.report.page import render
    from pipeline.report.review import review
    from pipeline.report.sources import Run

    found = contents(Run.of(root, pointer), settings)
    (folder / REVIEW).write_bytes(review(found.suspects))
    (folder / PAGE).write_text(render(found), "utf-8")
