"""Stage 5: worker processes that score the shards of a catalog, and what becomes of them when something goes wrong.

Each is a fresh interpreter with one thread for linear algebra, started as a program of its own: nothing that was warmed
here can hang there, and the caller's script is not run again, so that it needs no guard. What they say goes by pipes,
scores by files.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import errors
from pipeline.cores import ONE_THREAD
from pipeline.errors import WorkerError
from pipeline.scored import Job, Shard

# Arrow's own allocators keep an eighth more memory, and are no faster here.
OF_A_WORKER = {**ONE_THREAD, "ARROW_DEFAULT_MEMORY_POOL": "system", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
AHEAD = 2  # shards that a worker has been told: it need not wait for this process, which writes meanwhile
PACKAGE = str(Path(__file__).parents[1])


@dataclass(eq=False)
class Worker:
    """A process, and the shards that it has been told and has not done."""

    process: subprocess.Popen[bytes]
    log: Path
    waiting: deque[Shard] = field(default_factory=deque)
    unread: bytes = b""

    @classmethod
    def start(cls, job: Job, number: int) -> Worker:
        """Return a worker that knows the job."""
        log = Path(job.folder) / f"worker-{number}.log"
        # As this process finds modules, but this package first, whatever the directory is that it runs in.
        path = os.pathsep.join([PACKAGE, *filter(None, sys.path)])
        environment = {**os.environ, **OF_A_WORKER, "PYTHONPATH": path}
        command = [sys.executable, "-P", "-m", "pipeline.worker", str(os.getpid())]
        with log.open("wb") as errors_of_it:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors_of_it, env=environment
            )
        worker = cls(process, log)
        worker.send(job.to_json())
        return worker

    def send(self, line: str) -> None:
        """Send a line; one that has ended is found out when its answer is read."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def tell(self, shard: Shard) -> None:
        """Give it one more shard to do."""
        self.waiting.append(shard)
        self.send(json.dumps(shard))

    def done(self) -> list[Shard]:
        """Return the shards that it has done since it was last asked. Raises what went wrong with it."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 65_536)
        *lines, self.unread = (self.unread + data).split(b"\n")
        found = []
        for answer in map(json.loads, lines):
            if "error" in answer:
                raise _raised(answer)
            found.append(self.waiting.popleft())
        if not data:
            raise self._ended()
        return found

    def end(self) -> None:
        """End the process, whatever it does: a file that it was writing is known as unfinished."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self.process.kill()
        self.process.wait()

    def _ended(self) -> WorkerError:
        """Return the error of a process that has ended by itself."""
        code = self.process.wait()
        shard = self.waiting[0] if self.waiting else None
        where = f"items {shard.start + 1:,} to {shard.stop:,} (shard {shard.number})" if shard else "no items yet"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        told = self.log.read_text("utf-8", errors="replace").strip().splitlines()
        last = f"; it said: {told[-1][:300]}" if told else ""
        remedy = "run the same command again, which goes on from the shards that are done"
        if code == -signal.SIGKILL:
            remedy = f"if memory ran out, set [scoring] workers to fewer, then {remedy}"
        return WorkerError(f"a worker process {how} while it scored {where}{last}; {remedy}")


def score_shards(job: Job, shards: Sequence[Shard], *, n_workers: int) -> Generator[Shard, None, None]:
    """Have the shards scored by so many processes, and give each when its file is there, in any order.

    Raises WorkerError where a process ends, and the PipelineError that one tells; the others are ended first. Who stops
    asking ends them, too.
    """
    todo = deque(shards)
    workers: list[Worker] = []
    try:
        with selectors.DefaultSelector() as selector:
            for number in range(min(n_workers, len(shards))):
                workers.append(Worker.start(job, number))
                selector.register(workers[-1].process.stdout, selectors.EVENT_READ, workers[-1])  # type: ignore[arg-type]
            for _ in range(AHEAD):
                for worker in workers:
                    _tell_next(worker, todo)
            while any(worker.waiting for worker in workers):
                for key, _ in selector.select():
                    for shard in key.data.done():
                        _tell_next(key.data, todo)
                        yield shard
    finally:
        for worker in workers:
            worker.end()


def _tell_next(worker: Worker, todo: deque[Shard]) -> None:
    if todo:
        worker.tell(todo.popleft())


def _raised(answer: dict[str, Any]) -> errors.PipelineError:
    """Return the error that a worker met, of its own class."""
    kind: type[errors.PipelineError] = getattr(errors, answer["error"])
    return kind(answer["text"])
