"""After stage 5: the page that a person looks at the next morning, beside the scores and not in them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import luigi

from pipeline import artifacts, pointers, runs
from pipeline.config_nights import ReportSettings
from pipeline.digests import fingerprint
from pipeline.identity import STAGE_VERSIONS
from pipeline.pointers import Pointer
from tasks import config
from tasks.reporting import reported_progress
from tasks.targets import DirectoryTarget

PAGE = "report.html"


class Report(luigi.Task):
    """Publish the report of a run that stands, whatever the settings are now, and name it in the run's pointer."""

    of = luigi.Parameter(
        default="", description="a date, or the first digits of a run's fingerprint; empty: the latest"
    )

    @property
    def root(self) -> Path:
        """Return the directory of all results."""
        with config.mistakes_end_the_command():
            return config.opened(config.load().storage)

    @property
    def pointer(self) -> Pointer:
        """Return the run that is reported on."""
        with config.mistakes_end_the_command():
            return runs.find(self.root, str(self.of) or None)

    def output(self) -> DirectoryTarget:
        """Return the published directory."""
        return DirectoryTarget(self.root / place_of(self.pointer, config.load().report))

    def complete(self) -> bool:
        """Return whether the report is there and the pointer of its run, where there is one, names it."""
        pointer, place = self.pointer, self.output().path.relative_to(self.root).as_posix()
        named = pointers.read(pointers.of_date(self.root, pointer.date))
        return bool(super().complete()) and (named is None or named.run != pointer.run or named.report == place)

    def run(self) -> None:
        """Make the report."""
        pointer = self.pointer
        place = publish_report(self, self.root, pointer, config.load().report)
        pointers.amend(self.root, replace(pointer, report=place))
        print(f"report         {artifacts.address(self.root / place)}/{PAGE}")


def publish_report(task: luigi.Task, root: Path, pointer: Pointer, settings: ReportSettings) -> str:
    """Publish the report of a run, and return its directory, relative to the root; show progress meanwhile.

    It depends on what the plan has frozen of the night before too: so it is no part of the scores.
    """
    from pipeline.report import make_report

    parts, place = _parts(pointer, settings), place_of(pointer, settings)
    with reported_progress(task, "Report", link=(root / place / PAGE).absolute().as_uri()):
        artifacts.publish(
            root / place,
            lambda folder: make_report(root, pointer, folder, settings),
            work=root / "work" / fingerprint(parts),
            # Who removes old runs keeps this as long as the run that it tells of.
            facts={**parts, "fingerprint": fingerprint(parts), "upstreams": {"score": pointer.run}},
        )
    return place


def try_report(task: luigi.Task, root: Path, pointer: Pointer, settings: ReportSettings) -> str | None:
    """Return what `publish_report` does; None, and a word, where it fails: the scores are there, and do not wait."""
    try:
        return publish_report(task, root, pointer, settings)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        print(f"report: not made: {what}; luigi --module tasks Report --of {pointer.date} tries again", file=sys.stderr)
        return None


def place_of(pointer: Pointer, settings: ReportSettings) -> str:
    """Return the directory of the report of a run, relative to the root."""
    return f"report/{fingerprint(_parts(pointer, settings))}"


def _parts(pointer: Pointer, settings: ReportSettings) -> dict[str, object]:
    """Return what a report depends on; the plan stands for the night before and what was judged by it."""
    told = {name: getattr(pointer, name) for name in ("run", "model", "plan", "changes")}
    return {
        "stage": "report",
        "stage_version": STAGE_VERSIONS["report"],
        "settings": {"report": settings.model_dump(mode="json", exclude={"enabled"})},
        **told,
    }
