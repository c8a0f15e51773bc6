"""Progress that Luigi's scheduler hears too: the central one shows it beside the task, with a link to its directory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import luigi
from luigi.rpc import RPCError

from pipeline.progress import LineProgress, Progress, stage_progress

SECONDS = 2.0  # between two messages
logger = logging.getLogger("luigi-interface")


class Reported(Progress):
    """Progress of a task on screen, and every two seconds in the scheduler; there is none outside of a worker."""

    def __init__(self, line: LineProgress, task: luigi.Task) -> None:
        self.line = line
        self.task = task
        self.last_told = float("-inf")
        self.answers = True

    def update(self, done: float, total: int | None = None, **facts: object) -> None:
        """Show it, and tell it if the last message is long enough ago."""
        self.line.update(done, total, **facts)
        now = time.monotonic()
        if now - self.last_told >= SECONDS:
            self.last_told = now
            self.tell(self.line.line, None if not total else min(100, int(100 * done / total)))

    def note(self, text: str) -> None:
        """Show it and tell it."""
        self.line.note(text)
        self.tell(text)

    def tell(self, text: str, percentage: int | None = None, link: str | None = None) -> None:
        """Tell the scheduler, as long as it answers: a stage goes on without it."""
        told = (
            (self.task.set_status_message, text),
            (self.task.set_progress_percentage, percentage),
            (self.task.set_tracking_url, link),
        )
        try:
            for report, value in told:
                if self.answers and report is not None and value is not None:
                    report(value)
        except RPCError as error:
            self.answers = False  # Each further try would take Luigi a minute and a half.
            logger.warning("the scheduler hears no more of the progress of %s: %s", self.task, error)


@contextmanager
def reported_progress(task: luigi.Task, title: str, *, link: str) -> Iterator[Progress]:
    """Give the progress of a task; `link` is where its results will lie, as an address for browsers."""
    with stage_progress(title) as line:
        reported = Reported(line, task)
        reported.tell("begun", link=link)
        yield reported
        reported.tell(line.line or "done", 100)
