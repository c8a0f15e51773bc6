"""Progress of a stage: one live line on a terminal, one plain line a stage elsewhere (cron, a log file)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """What a stage tells about itself while it works; this one is silent (library use, tests)."""

    def update(self, done: float, total: int | None = None, **facts: object) -> None:
        """Tell that `done` of `total` units of work are done, parts of one too; facts are shown as `name value`."""

    def note(self, text: str) -> None:
        """Say one thing that a person should know now, on a line of its own."""


SILENT = Progress()


class LineProgress(Progress):
    """Write progress of one stage to a text stream; redraws its line where the stream is a terminal."""

    def __init__(self, stage: str, stream: TextIO) -> None:
        self.stage = stage
        self.stream = stream
        self.live = stream.isatty()
        self.started = time.monotonic()
        self.last_drawn = 0.0
        self.first: tuple[float, float] | None = None  # when the first update came, and what was done then
        self.line = ""

    def update(self, done: float, total: int | None = None, **facts: object) -> None:
        """Redraw the line, at most ten times a second; on a plain stream only remember it for the end.

        A live line also says how long the rest takes if it goes on as since the first update; training may end sooner.
        """
        of = f"/{total:,}" if total else ""
        shown = "  ".join(f"{name.replace('_', ' ')} {_show(value)}" for name, value in facts.items())
        self.line = f"{int(done):,}{of}  {shown}".rstrip()
        now = time.monotonic()
        self.first = (now, done) if self.first is None else self.first
        if self.live and now - self.last_drawn >= 0.1:
            self.last_drawn = now
            began, before = self.first
            left = (now - began) * (total - done) / (done - before) if total and before < done < total else None
            self._draw("" if left is None else f"  {duration(left)} left")

    def note(self, text: str) -> None:
        """Write the text on a line of its own."""
        self.stream.write(f"{self._clear()}{self.stage:<13} {text}\n")
        self.stream.flush()

    def close(self) -> None:
        """Write the stage's last line, with its duration."""
        seconds = time.monotonic() - self.started
        self.stream.write(f"{self._clear()}{self.stage:<13} {self.line or 'done'}  ({seconds:.1f} s)\n")
        self.stream.flush()

    def abandon(self) -> None:
        """Clear the live line: what comes next is an error message."""
        self.stream.write(self._clear())
        self.stream.flush()

    def _clear(self) -> str:
        return "\r\033[K" if self.live else ""

    def _draw(self, left: str) -> None:
        seconds = time.monotonic() - self.started
        self.stream.write(f"{self._clear()}{self.stage:<13} {self.line}  {seconds:.0f} s{left}")
        self.stream.flush()


@contextmanager
def stage_progress(stage: str, stream: TextIO | None = None) -> Iterator[LineProgress]:
    """Give the progress of a stage, and write its last line when the stage ends well; clear the live one if not."""
    progress = LineProgress(stage, stream if stream is not None else sys.stderr)
    try:
        yield progress
    except BaseException:
        progress.abandon()
        raise
    progress.close()


def duration(seconds: float) -> str:
    """Return a time that is to come as a person says it.

    >>> duration(4.2), duration(200), duration(9000)
    ('4 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _show(value: object) -> str:
    """Return a number as a person reads it.

    >>> _show(12345.6), _show(0.51234), _show("genre .75")
    ('12,346', '0.512', 'genre .75')
    """
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return str(value)
