"""Stage 5: a process that scores shards, `python -m pipeline.worker PARENT`, started and told what to do by crew.py.

It reads lines of JSON: the job, then a shard each; it answers each shard by a line. It ends when the other end of its
input is closed, whatever it is doing: so it does not outlive the process that started it, however that one ended.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import sys
import threading
from importlib.abc import MetaPathFinder
from typing import TextIO

from pipeline.errors import PipelineError
from pipeline.orphans import killed_with

POLL_SECONDS = 1.0
Lines = queue.SimpleQueue[str]


class WithoutPandas(MetaPathFinder):
    """Says that there is no pandas: Arrow would import it, for a third of a second, to recognise its objects."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for pandas; leave all others to others."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=name)


def main(parent: int) -> None:
    """Score shards as long as there are some."""
    sys.meta_path.insert(0, WithoutPandas())
    # Who presses Ctrl-C ends the process above, and so this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    killed_with(parent)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Whatever a library prints is no answer.
    lines: Lines = queue.SimpleQueue()
    threading.Thread(target=listen, args=(lines, parent), daemon=True).start()
    try:
        work(lines, answers)
    except PipelineError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}), file=answers)
        os._exit(1)


def work(lines: Lines, answers: TextIO) -> None:
    """Score the shards that the lines name."""
    from pipeline.scored import Job, Scorer, Shard
    from pipeline.scoring import one_thread

    scorer = Scorer(Job(**json.loads(lines.get())))
    with one_thread():
        while True:
            shard = Shard(*json.loads(lines.get()))
            scorer.score(shard)
            print(json.dumps({"done": shard.number}), file=answers)


def listen(lines: Lines, parent: int) -> None:
    """Pass lines on; end the process where no more can come.

    A copy of the other end may live on in a process that the parent has forked: so the parent is looked for, too.
    """
    unread = b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        data = os.read(0, 65_536) if ready else None
        if data == b"" or os.getppid() != parent:
            os._exit(0)
        *whole, unread = (unread + (data or b"")).split(b"\n")
        for line in whole:
            lines.put(line.decode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
