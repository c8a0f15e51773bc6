"""Progress of a stage: one live bar on a terminal, one plain line a stage elsewhere (cron, a log file)."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Progress:
    """What a stage tells about itself while it works; this one is silent (library use, tests)."""

    def update(self, done: float, total: int | None = None, **facts: object) -> None:
        """Tell that `done` of `total` units of work are done, parts of one too; facts are shown as `name value`."""

    def note(self, text: str) -> None:
        """Say one thing that a person should know now, on a line of its own."""


SILENT = Progress()


class LineProgress(Progress):
    """Write progress of one stage to a text stream; where that is a terminal, as a bar that is drawn again."""

    def __init__(self, stage: str, stream: TextIO) -> None:
        self.stage = stage
        self.stream = stream
        self.live = stream.isatty()
        self.started = time.monotonic()
        self.line = ""
        self._bar: Any = None

    def update(self, done: float, total: int | None = None, **facts: object) -> None:
        """Redraw the bar, at most ten times a second; on a plain stream only remember the line for the end.

        A bar also says how long the rest takes if it goes on as since the first update; training may end sooner.
        """
        of = f"/{total:,}" if total else ""
        shown = "  ".join(f"{name.replace('_', ' ')} {_show(value)}" for name, value in facts.items())
        self.line = f"{int(done):,}{of}  {shown}".rstrip()
        if not self.live:
            return
        shape = f"{self.stage:<13} {{bar:16}} " if total else f"{self.stage:<13} "
        shape += self.line.replace("{", "{{").replace("}", "}}")
        shape += "  {elapsed}, {remaining} left" if total else "  {elapsed}"
        if self._bar is None:
            self._bar = _new_bar(self.stream, done, total, shape)
        self._bar.bar_format, self._bar.total = shape, total
        self._bar.update(done - self._bar.n)

    def note(self, text: str) -> None:
        """Write the text on a line of its own."""
        self.abandon()
        self.stream.write(f"{self.stage:<13} {text}\n")
        self.stream.flush()

    def close(self) -> None:
        """Write the stage's last line, with its duration."""
        seconds = time.monotonic() - self.started
        self.note(f"{self.line or 'done'}  ({seconds:.1f} s)")

    def abandon(self) -> None:
        """Take the bar away: what comes next is a line, or an error message."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self.stream.flush()


def _new_bar(stream: TextIO, done: float, total: int | None, shape: str) -> Any:
    """Return a bar of tqdm, without threads and semaphores of its own: a killed job would leave these."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())
    options = {"dynamic_ncols": True, "leave": False, "mininterval": 0.1, "miniters": 0, "smoothing": 0}
    return tqdm(initial=done, total=total, file=stream, position=0, bar_format=shape, **options)


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


def _show(value: object) -> str:
    """Return a number as a person reads it.

    >>> _show(12345.6), _show(0.51234), _show("genre .75")
    ('12,346', '0.512', 'genre .75')
    """
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return str(value)
