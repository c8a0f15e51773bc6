"""The base of the five stages: identity by date and fingerprint, publication, messages."""

from __future__ import annotations

import datetime
import sys
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import luigi

from pipeline import artifacts
from pipeline.config import Settings
from pipeline.errors import ArtifactError, SettingsError
from pipeline.identity import STAGE_VERSIONS, Identity, significant, upstreams_of
from pipeline.manifests import is_broken
from pipeline.orphans import end_with_parent
from pipeline.progress import LineProgress, Progress
from pipeline.remote import root_of
from tasks import config, identities
from tasks.reporting import reported_progress
from tasks.retries import Result, patiently
from tasks.targets import DirectoryTarget


class RunDate(luigi.DateParameter):
    """The date of a run; what is no date ends the command with one line."""

    def parse(self, s: str) -> datetime.date:
        """Return the date of YYYY-MM-DD."""
        with config.mistakes_end_the_command():
            try:
                return datetime.date.fromisoformat(s)
            except ValueError as error:
                raise SettingsError(f"--date {s}: is not a date as YYYY-MM-DD ({error})") from None

    def _parse_or_no_value(self, x: str | None) -> Any:
        # As of a setting: an empty value is a mistake, of a script for instance, and no wish for today.
        return super()._parse_or_no_value(x) if x is None else self.parse(x)


class Dated(luigi.Task):
    """A task whose identity is its date and the fingerprint of what it makes."""

    date = RunDate(default=datetime.date.today(), description="date of the run, YYYY-MM-DD")
    fingerprint = luigi.Parameter(
        default="", positional=False, description="computed from settings and input files; leave it empty"
    )
    stage: ClassVar[str]

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: Any) -> list[tuple[str, Any]]:
        """Return Luigi's values, with the fingerprint of the current settings and files where none is given."""
        values = dict(super().get_param_values(params, args, kwargs))
        values["fingerprint"] = identities.known_fingerprint(
            cls.stage_of(values), values["date"], values["fingerprint"]
        )
        return [(name, values[name]) for name, _ in params]

    @classmethod
    def stage_of(cls, values: dict[str, Any]) -> str:
        """Return the name of the fingerprint that these parameters ask for."""
        return cls.stage

    @property
    def identity(self) -> Identity:
        """Return settings, inputs and fingerprints of the run that this task belongs to."""
        return identities.known[self.date, self.fingerprint]

    @property
    def settings(self) -> Settings:
        """Return the settings of the run."""
        return self.identity.settings

    @property
    def scores_another_catalog(self) -> bool:
        """Return whether [scoring] names items of its own."""
        return "scoring" in self.identity.inputs

    @property
    def root(self) -> Path:
        """Return the directory of all results."""
        return root_of(self.settings.storage)

    def with_last_accepted(self) -> str:
        """Return the fingerprint of the scores by the last accepted model of the plan, and make that run known."""
        (other,) = identities.with_last_accepted(self.identity, self.date)
        identities.begin(other)
        for name in other.fingerprints.values():
            identities.known.setdefault((self.date, name), other)
        return other.of("score")

    def patiently(self, action: Callable[[], Result]) -> Result:
        """Return what the action returns, tried again where its failure may pass by itself, and say so."""
        return patiently(action, self.settings.storage, note=LineProgress(self.get_task_family(), sys.stderr).note)

    def same_run(self, task: type[Dated], name: str, **parameters: Any) -> Dated:
        """Return another task of the same run, by the name of its fingerprint."""
        return task(date=self.date, fingerprint=self.identity.of(name), **parameters)


class Stage(Dated):
    """A task that publishes one directory, `<root>/<stage>/<fingerprint>`."""

    stage: ClassVar[str]

    @property
    def folder(self) -> Path:
        """Return the directory that this task publishes."""
        return self.root / self.stage / self.fingerprint

    @property
    def work(self) -> Path:
        """Return the directory of what is unfinished, checkpoints for instance."""
        return self.root / "work" / self.folder.name

    @abstractmethod
    def requires(self) -> dict[str, Any]:
        """Return the tasks that come before by name, `plan` among them, and `drift` where it is waited for."""

    def output(self) -> Any:
        """Return the published directory."""
        return DirectoryTarget(self.folder)

    def complete(self) -> bool:
        """Return whether the outputs are there, and nothing that they were made from was found damaged since.

        Else nobody would make that again as long as these are there. They stay as they are: `publish` finds them.
        """
        done = super().complete
        try:
            there = self.patiently(done)
        except ArtifactError as error:
            if not is_broken(error):
                raise
            if not identities.looking_on.get():
                artifacts.disown(self.folder)
            return False
        return bool(there) and not self.rests_on_damage()

    def rests_on_damage(self) -> bool:
        """Return whether a directory before this one, directly or not, was found damaged and not made again yet."""
        stages = [task for task in self.requires().values() if isinstance(task, Stage)]
        return any(artifacts.disowned(stage.folder) or stage.rests_on_damage() for stage in stages)

    def read(self, name: str) -> Path:
        """Return the directory of an upstream of `requires`, all its files verified.

        A damaged one raises ArtifactError, and does not count any more, so that the next run makes it again.
        """
        target: DirectoryTarget = self.requires()[name].directory()
        try:
            return self.patiently(target.verified)
        except ArtifactError as error:
            if error.__cause__ is not None and not is_broken(error):  # Nothing is known to be damaged.
                raise
            artifacts.disown(target.path)
            what, _, _ = str(error).partition(";")
            raise ArtifactError(
                f"{what}; run the same command again, which makes {target.path.parent.name} anew"
            ) from None

    def directory(self) -> DirectoryTarget:
        """Return the published directory as a target, also where the task has other outputs beside it."""
        return DirectoryTarget(self.folder)

    def publish(self, write: Callable[[Path, Progress], None]) -> None:
        """Publish what `write(folder, progress)` writes, and show progress meanwhile."""
        with reported_progress(self, self.title, link=self.folder.absolute().as_uri()) as progress:
            publish = partial(
                artifacts.publish,
                self.folder,
                lambda folder: write(folder, progress),
                work=self.work,
                facts=self.facts(),
                waiting=lambda: progress.note("another run builds the same; waiting for it"),
            )
            patiently(publish, self.settings.storage, note=progress.note)

    @property
    def title(self) -> str:
        """Return what the task is called on screen."""
        return str(self.get_task_family())

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of where the results come from."""
        known = upstreams_of(self.settings, self.stage)
        upstreams = {name: task.fingerprint for name, task in self.requires().items()}
        return {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "stage_version": STAGE_VERSIONS[self.stage],
            "settings": significant(self.settings, self.stage),
            "upstreams": {name: value for name, value in upstreams.items() if name in known},
        }


@Stage.event_handler(luigi.Event.START)
def end_with_luigi(_: Stage) -> None:
    """With several workers a task runs in a process of its own, which must not publish when Luigi has been stopped."""
    end_with_parent()
