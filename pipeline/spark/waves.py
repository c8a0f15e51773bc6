"""Parts of a catalog go to the executors and come back to the driver, in waves of a few for each task that can run.

Two waves are under way while a third is being written: the executors have work all the time, and the driver holds three
waves, whatever the size of the catalog; a wave has at most a sixteenth of the driver's memory. No file system needs to
be shared: all that an executor reads and writes passes through Spark, so that a lost executor costs nothing but time.
"""

from __future__ import annotations

import re
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import errors
from pipeline.errors import PipelineError, WorkerError
from pipeline.refusals import in_words
from pipeline.spark.executor import ROW_OF_SPARK, row

UNDER_WAY = 2  # waves
PER_TASK = 2  # parts in a wave for each task that runs at once
SHARE = 16  # of the driver's memory a wave has at most one in so many
Part = tuple[int, pa.Buffer]  # number, content
Work = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
_OURS = re.compile(r"^pipeline\.errors\.(\w+): (.*)", re.MULTILINE)
_REASON = re.compile(r"(?:Job aborted due to stage failure: |\w+(?:Exception|Error): )(.*)")


def through_executors(session: Any, parts: Iterable[Part], work: Work) -> Generator[Part, None, None]:
    """Give number and content of each part after the executors' work on it; parts whose numbers ascend, in their order.

    A task that Spark runs again or twice (an executor was lost, or is slow) counts once. Raises the PipelineError that
    an executor met, and WorkerError where Spark gave up. Who stops asking ends what is under way.
    """
    context = session.sparkContext
    group, running = f"tagladder {uuid.uuid4()}", deque[Future[pa.Table]]()
    memory = int(context._jvm.java.lang.Runtime.getRuntime().maxMemory())
    # Executors come and go: the first may not be there yet, and with dynamic allocation they follow the tasks.
    waiting = waves(parts, n_parts=lambda: PER_TASK * context.defaultParallelism, n_bytes=memory // SHARE)

    def send() -> None:
        while len(running) < UNDER_WAY and (wave := next(waiting, None)):
            running.append(pool.submit(_run, session, group, wave, work))

    with ThreadPoolExecutor(UNDER_WAY, thread_name_prefix="wave") as pool:
        try:
            send()
            while running:
                done = running.popleft().result()
                send()
                for place in pc.sort_indices(done["number"]).to_pylist():
                    yield done["number"][place].as_py(), done["content"][place].as_buffer()
        finally:
            if running:
                context.cancelJobGroup(group)


def waves(parts: Iterable[Part], *, n_parts: Callable[[], int], n_bytes: int) -> Iterator[list[Part]]:
    """Give the parts in lists of so many, asked for each, or of fewer that have so many bytes; no part is taken ahead.

    >>> parts = enumerate([b"a", b"bcd", b"efg", b"h"])
    >>> [[number for number, _ in wave] for wave in waves(parts, n_parts=lambda: 2, n_bytes=3)]
    [[0, 1], [2], [3]]
    """
    wave: list[Part] = []
    most = n_parts()
    for part in parts:
        wave.append(part)
        if len(wave) >= most or sum(len(content) for _, content in wave) >= n_bytes:
            yield wave
            wave, most = [], n_parts()
    if wave:
        yield wave


def _run(session: Any, group: str, wave: list[Part], work: Work) -> pa.Table:
    """Return the rows of a wave after the work on them, in any order."""
    session.sparkContext.setJobGroup(group, f"{len(wave)} parts from {wave[0][0]} on")
    # A batch for each part: Spark makes a task of each.
    rows = pa.Table.from_batches([row(number, content) for number, content in wave])
    try:
        return session.createDataFrame(rows).mapInArrow(lambda batches: work(batches), ROW_OF_SPARK).toArrow()
    except Exception as error:
        known = told(error)
        raise known from known.__cause__


def told(error: Exception) -> PipelineError:
    """Return what Spark's exception is about: an error of ours that an executor met, or why Spark gave up.

    Its cause is the error of the system that the text tells of, if any: what is full may not be in a while.

    >>> told(Exception("Traceback\\npipeline.errors.ModelError: model.h5: is damaged"))
    ModelError('model.h5: is damaged')
    """
    text = str(error)
    if ours := _OURS.findall(text):
        name, message = ours[-1]
        kind: type[PipelineError] = getattr(errors, name)
        known = kind(message)
    else:
        reason = _REASON.search(text)
        shown = (reason[1] if reason else text.strip().partition("\n")[0])[:500]
        known = WorkerError(f"Spark gave up: {shown}; nothing was published; run the same command again")
    known.__cause__ = in_words(_OURS.sub("", text))
    return known
