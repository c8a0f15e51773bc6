"""What the program of a stage tells the process that started it: lines of JSON in a file, progress and, last, an error.

Who starts a program by spark-submit has no pipe to it: the standard streams are Spark's log.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import errors
from pipeline.progress import Progress
from pipeline.refusals import of_system

POLL_SECONDS = 0.2


class Teller(Progress):
    """Progress that goes into the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def update(self, done: float, total: int | None = None, **facts: object) -> None:
        """Tell how much is done."""
        self._say({"update": [done, total, facts]})

    def note(self, text: str) -> None:
        """Tell one thing."""
        self._say({"note": text})

    def fail(self, error: BaseException) -> None:
        """Tell why the program ends: an error by its class, that of the system which it comes from by its number."""
        system = of_system(error)
        path = None if system is None or system.filename is None else str(system.filename)
        cause = None if system is None else [system.errno, path]
        self._say({"error": type(error).__name__, "text": str(error), "cause": cause, "itself": system is error})

    def _say(self, message: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(message) + "\n")


class Listener:
    """The other end: passes progress on while the program runs, and knows afterwards why it failed, if it did."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path, self._progress = path, progress
        self._n_read = 0
        self._failure: dict[str, Any] | None = None
        path.write_text("")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Pass on what is told meanwhile, to the last line."""
        ended = threading.Event()

        def listen() -> None:
            while not ended.wait(POLL_SECONDS):
                self._pass_on()

        thread = threading.Thread(target=listen, name="progress from Spark", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._pass_on()

    def failure(self) -> Exception | None:
        """Return the error that the program told; None where it told none.

        That of the system is one again, or the cause of ours, so that who tries again what may pass can tell it from
        what cannot.
        """
        told = self._failure
        if told is None:
            return None
        cause = None
        if told["cause"] is not None:
            number, path = told["cause"]
            cause = OSError(number, os.strerror(number), path)
            if told["itself"]:
                return cause
        kind, text = getattr(errors, told["error"], None), told["text"]
        if not (isinstance(kind, type) and issubclass(kind, errors.PipelineError)):
            kind, text = errors.WorkerError, f"the program on Spark ended with {told['error']}: {text}"
        error = kind(text)
        error.__cause__ = cause
        return error

    def _pass_on(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._n_read)
            *lines, _ = file.read().split(b"\n")  # what follows the last end of a line is not whole yet
        self._n_read += sum(len(line) + 1 for line in lines)
        for message in map(json.loads, lines):
            if "update" in message:
                done, total, facts = message["update"]
                self._progress.update(done, total, **facts)
            elif "note" in message:
                self._progress.note(message["note"])
            else:
                self._failure = message
