"""The run of a date as the command line and the settings files have it, looked at and not run."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import luigi
from luigi.cmdline_parser import CmdlineParser

from pipeline import ledger
from pipeline.errors import ArtifactError
from pipeline.reasons import Wanted
from pipeline.status import StageState, failures, state_of
from tasks import config
from tasks.identities import looking_on
from tasks.plan import NOT_PLANNED, PublishedModel
from tasks.score import ScoreCatalog
from tasks.stage import Stage


@contextmanager
def command_line(flags: Sequence[str]) -> Iterator[Path]:
    """Read settings as `luigi --module tasks ScoreCatalog FLAGS` would, and give the root of the results.

    Raises SettingsError for a mistake in them.
    """
    with flags_of(flags):
        yield config.opened(config.load().storage)


@contextmanager
def flags_of(flags: Sequence[str]) -> Iterator[None]:
    """Let flags of Luigi's command count, and look on: nothing is locked. Raises SettingsError for one misspelt."""
    config.check_flags(flags)
    told = looking_on.set(True)
    try:
        with CmdlineParser.global_instance(["ScoreCatalog", *flags]):
            yield
    finally:
        looking_on.reset(told)


def run_of(date: datetime.date) -> ScoreCatalog:
    """Return the main task of a date, within `command_line`."""
    return ScoreCatalog(date=date)


def stages(task: ScoreCatalog) -> list[Stage]:
    """Return the stages of a run in their order, each once."""
    found: dict[tuple[str, Path], Stage] = {}
    for each in _before(task):
        if isinstance(each, Stage) and not isinstance(each, PublishedModel):
            found.setdefault((each.title, each.folder), each)
    return list(found.values())


def states(task: ScoreCatalog) -> list[StageState]:
    """Return how far each stage is, and how those that are not complete ended the last time."""
    try:
        told = failures(ledger.entries(task.root))
    except ArtifactError as error:  # Nothing depends on it.
        print(error, file=sys.stderr)
        told = {}
    return [
        state_of(stage.title, stage.folder, work=stage.work, failure=told.get(stage.folder.name))
        for stage in stages(task)
    ]


def wanted(task: ScoreCatalog) -> list[Wanted]:
    """Return what each stage would be made from today; nothing is known of one that waits for the plan."""
    return [
        Wanted(
            stage=stage.title,
            name=stage.stage_of(dict(stage.param_kwargs)),
            folder=stage.folder,
            facts={} if stage.folder.name == NOT_PLANNED else stage.facts(),
        )
        for stage in stages(task)
    ]


def _before(task: luigi.Task) -> Iterator[luigi.Task]:
    """Give the tasks that a task waits for, and then the task itself."""
    for upstream in luigi.task.flatten(task.requires()):
        yield from _before(upstream)
    yield task
