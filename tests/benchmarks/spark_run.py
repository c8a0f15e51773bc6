"""One stage by one engine, in a process of its own: what tests/benchmarks/spark.py starts and reads."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

TICK = os.sysconf("SC_CLK_TCK")


def one(stage: str, engine: str, sections: dict[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """Do a stage by an engine, `local 2` or `local[2]` of Spark; return seconds, processor time and digests."""
    from pipeline.config import make_settings
    from pipeline.digests import sha256_of
    from pipeline.progress import SILENT

    out.mkdir(parents=True)
    settings, carried = make_settings(sections), Counter[str]()
    started = time.perf_counter()
    session = None if engine.startswith("local ") else start(engine, carried)
    ready, before = time.perf_counter(), processor_seconds()
    if stage == "clean":
        items = settings.catalog.items
        options = {"expected": {items: sha256_of(Path(items))}, "role": "training"}
        if session is None:
            from pipeline.cleaning import clean

            clean(settings, out, **options)
        else:
            from pipeline.spark.cleaning import clean_on_spark

            clean_on_spark(session, settings, out, **options, progress=SILENT)
    elif stage == "features":
        if session is None:
            from pipeline.features import build

            build(settings, folder / "clean", out)
        else:
            from pipeline.spark.features import build_on_spark

            build_on_spark(session, settings, folder / "clean", out, progress=SILENT)
    elif session is None:
        from pipeline.score_catalog import Effort, score

        scoring = settings.scoring.model_copy(update={"workers": int(engine.split()[1])})
        settings = settings.model_copy(update={"scoring": scoring})
        few = Effort(few_items=0)
        score(settings, folder / "model.h5", folder / "clean", out, run="bench", progress=SILENT, effort=few)
    else:
        from pipeline.spark.scoring import score_on_spark

        score_on_spark(session, settings, folder / "model.h5", folder / "clean", out, run="bench", progress=SILENT)
    seconds, after = time.perf_counter() - ready, processor_seconds()
    return {
        "seconds": seconds,
        "start": ready - started,
        **{name: after[name] - before[name] for name in after},
        **carried,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        "digests": {
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.rglob("*"))
            if path.is_file()
        },
    }


def start(master: str, carried: Counter[str]) -> Any:
    """Return a session whose executors have run once, and have what goes in and out counted in bytes."""
    from pyspark.sql import SparkSession

    from pipeline.spark import cleaning, features, scoring, waves
    from pipeline.spark.cluster import own_python
    from pipeline.spark.cluster import prepare as prepare_session

    own_python()
    options = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
    builder = SparkSession.builder.master(master)
    for name, value in {**options, "spark.rpc.message.maxSize": "1024"}.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    prepare_session(session)
    warm = ((number, pa.py_buffer(b"")) for number in range(8))
    for _ in waves.through_executors(session, warm, lambda batches: batches):
        pass

    def counted(session: Any, parts: Any, work: Any) -> Any:
        def sent() -> Any:
            for number, content in parts:
                carried["sent"] += len(content)
                yield number, content

        for number, content in waves.through_executors(session, sent(), work):
            carried["returned"] += len(content)
            yield number, content

    for stage in (cleaning, features, scoring):
        stage.through_executors = counted  # type: ignore[attr-defined]
    return session


def processor_seconds() -> dict[str, float]:
    """Return the processor time so far of this process, of Java, and of all other processes below this one."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found = {"driver": own.ru_utime + own.ru_stime, "java": 0.0, "others": ended.ru_utime + ended.ru_stime}
    above, times = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        values = rest.split()
        above[int(path.parent.name)] = int(values[1])
        is_java = name.endswith("(java")
        # Of a process of Python also what its ended children took: executors' daemons fork.
        times[int(path.parent.name)] = (is_java, sum(map(int, values[11 : 13 if is_java else 15])) / TICK)
    for process, (is_java, seconds) in times.items():
        ancestor = above[process]
        while ancestor not in (0, os.getpid()):
            ancestor = above.get(ancestor, 0)
        if ancestor:
            found["java" if is_java else "others"] += seconds
    return found


if __name__ == "__main__":
    _, stage, engine, sections, folder, out = sys.argv
    print(json.dumps(one(stage, engine, json.loads(sections), Path(folder), Path(out))))
