"""Before the five stages: the input files must be there, and the plan of the run is written down."""

from __future__ import annotations

import logging
import sys
from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import luigi

from pipeline import mirror, pointers
from pipeline.digests import fingerprint, sealed
from pipeline.identity import STAGE_VERSIONS, significant
from pipeline.locks import held
from pipeline.plans import read_plan, write_plan
from pipeline.remote import remote_of
from pipeline.urls import is_url
from tasks import config
from tasks.identities import plan_name
from tasks.retries import patiently
from tasks.stage import Dated, Stage
from tasks.targets import FileTarget, PlanTarget, UrlTarget

NOT_PLANNED = "not-planned"  # the name of a directory that is never there


class InputFile(luigi.ExternalTask):
    """A file that comes from elsewhere; absent means exit code 20, before any work."""

    path = luigi.Parameter(description="the file")
    named_by = luigi.Parameter(significant=False, description="the setting that names it")

    def complete(self) -> bool:
        """Return whether the file is there; a store that does not answer is asked again."""
        there = super().complete
        return bool(patiently(there, config.load().storage, note=config.note) if is_url(self.path) else there())

    def output(self) -> FileTarget | UrlTarget:
        """Return the file."""
        return UrlTarget(self.path) if is_url(self.path) else FileTarget(Path(self.path))


class PublishedModel(luigi.ExternalTask, Stage):
    """A published model that this run uses again, or starts from; absent means exit code 20."""

    stage = "export"

    def requires(self) -> dict[str, Any]:
        """Return nothing: it is there."""
        return {}


class PlanRun(Dated):
    """Freeze what a run of this date starts from: the input files, the last published run, the model that is chosen.

    The plan is written once for a date, its inputs and settings. What a stage wants to know of yesterday
    it takes from here, so that a repetition finds the same yesterday.
    """

    stage = "plan"

    def requires(self) -> list[InputFile]:
        """Return all input files of all roles: without one of them nothing of the run is begun."""
        files = [file for files in self.identity.inputs.values() for file in files]
        return [InputFile(path=file.path, named_by=f"[{file.section}] {file.setting}") for file in files]

    def output(self) -> PlanTarget:
        """Return the plan, as far as it has chosen as this run has."""
        return PlanTarget(self.root / plan_name(self.date, self.identity), self.identity.choice)

    def run(self) -> None:
        """Write the plan, unless another run of the same has written it meanwhile.

        Raises ArtifactError where that one came between two publications, and has chosen another model.
        """
        self.patiently(self.write)

    def write(self) -> None:
        """Write the plan, by one try."""
        work = self.root / "work"
        with held(work / "plan.lock"):
            if not self.output().agrees():
                self.keep(self.output().path, work)

    def keep(self, path: Path, work: Path) -> None:
        """Write the plan down; where a store has one that another machine has written first, that one counts."""
        remote = remote_of(self.root)
        if remote is None:
            write_plan(path, self.content(), work=work)
            return
        mirror.keep_first(remote, path, sealed(self.content()))
        self.output().agrees()

    def content(self) -> dict[str, Any]:
        """Return what is frozen."""
        latest = pointers.latest(self.root, until=str(self.date))
        return {
            "format": 1,
            "date": str(self.date),
            "fingerprint": self.fingerprint,
            "inputs": {file.path: file.digest for files in self.identity.inputs.values() for file in files},
            "stages": dict(self.identity.fingerprints),
            "last_published_run": None if latest is None else latest.run,
            "last_published_date": None if latest is None else latest.date,
            "last_accepted_model": None if latest is None else latest.model,
            "choice": asdict(self.identity.choice),
        }


class AgainstPlan(Stage):
    """A stage that compares with what the plan has frozen of yesterday.

    Its parameters are those of the plan. Its directory is named by what it compares, so that a new date with
    unchanged inputs finds it done once it has been compared with itself.
    """

    frozen: ClassVar[str]  # what of the plan it compares with

    @classmethod
    def stage_of(cls, values: dict[str, Any]) -> str:
        """Return the plan: what was last stands there."""
        return "plan"

    @property
    def folder(self) -> Path:
        """Return the directory; before the plan is written there is none that could be there."""
        if not self.same_run(PlanRun, "plan").output().exists():
            return self.root / self.stage / NOT_PLANNED
        return self.root / self.stage / fingerprint({**self.parts(), self.frozen: self.last()})

    def parts(self) -> dict[str, Any]:
        """Return what the result depends on, beside what is frozen."""
        settings = significant(self.settings, self.stage)
        return {"stage_version": STAGE_VERSIONS[self.stage], "settings": settings, "upstreams": self.compared()}

    @abstractmethod
    def compared(self) -> dict[str, str]:
        """Return the fingerprints of what is compared, by name."""

    def last(self) -> str | None:
        """Return what the plan has frozen; None where there was none before."""
        plan = read_plan(self.same_run(PlanRun, "plan").output().path)
        return None if plan is None else plan[self.frozen]

    def facts(self) -> dict[str, Any]:
        """Return what is compared."""
        return {"stage": self.stage, "fingerprint": self.folder.name, **self.parts(), "baseline": self.last()}


@PublishedModel.event_handler(luigi.Event.DEPENDENCY_MISSING)
def tell_gone(task: PublishedModel) -> None:
    """Say that the model which the plan has frozen is there no more."""
    print(f"model: {task.folder}: is gone or damaged, and the plan of {task.date} needs it", file=sys.stderr)
    print("model: --training-refresh changed --training-warm-start '' trains without it", file=sys.stderr)


@InputFile.event_handler(luigi.Event.DEPENDENCY_MISSING)
def tell_absent(task: InputFile) -> None:
    """Say which file is absent and which setting names it."""
    what = "no such file"
    if not is_url(task.path):
        there = "there is something, but no file that may be read" if Path(task.path).exists() else what
        what = f"{there}, seen from {Path.cwd()}"
    text = f"input: {task.path}: {what}; see {task.named_by}"
    print(text, file=sys.stderr)
    logging.getLogger(__name__).error(text)
