"""The program that spark-submit runs: one stage on Spark, told by a file of JSON, `app.py JOB`.

It is the driver. It ends with the process that started it, and tells it by a file how far it is and what goes wrong.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # This package as it is installed, before anything else of that name, and not the folder that this file lies in.
    sys.path[0] = str(Path(__file__).parents[2])

from pipeline.config import Settings
from pipeline.files import remove
from pipeline.leftovers import alive
from pipeline.spark.cluster import own_python, prepare
from pipeline.spark.messages import Teller

POLL_SECONDS = 1.0
PATIENCE = 60.0  # seconds without a task of a running job until it is told; the next time after twice as many
MESSAGE_MB = 1024  # Spark sends tasks of 128 MB by default; a shard of features may be larger before it is one


def main(path: Path) -> int:
    """Do what the job says; return the exit code."""
    job = json.loads(path.read_text("utf-8"))
    threading.Thread(target=_end_with, args=(job["parent"],), name="end with parent", daemon=True).start()
    teller = Teller(Path(job["messages"]))
    try:
        run(job, teller)
    except Exception as error:
        teller.fail(error)
        raise
    return 0


def run(job: dict[str, Any], teller: Teller) -> None:
    """Start a session and do the stage."""
    remove(Path(job["properties"]))  # Java has read it, and it may have passwords.
    own_python()
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    if "spark.rpc.message.maxSize" not in dict(SparkConf().getAll()):
        builder = builder.config("spark.rpc.message.maxSize", str(MESSAGE_MB))
    session = builder.getOrCreate()
    try:
        session.sparkContext.setLogLevel("ERROR")
        watching = (session.sparkContext.statusTracker(), teller)
        threading.Thread(target=tell_of_waiting, args=watching, name="waiting for executors", daemon=True).start()
        prepare(session)
        paths = {name: Path(value) for name, value in job["paths"].items()}
        settings = Settings.model_validate(job["settings"])
        stage(job["stage"])(session, settings, **paths, **job["options"], progress=teller)
    finally:
        session.stop()


def stage(name: str) -> Callable[..., None]:
    """Return what does a stage; each is imported alone."""
    if name == "clean":
        from pipeline.spark.cleaning import clean_on_spark

        return clean_on_spark
    if name == "features":
        from pipeline.spark.features import build_on_spark

        return build_on_spark
    from pipeline.spark.scoring import score_on_spark

    return score_on_spark


def tell_of_waiting(tracker: Any, teller: Teller, *, patience: float = PATIENCE) -> None:
    """Tell where a job runs and none of its tasks does, which Spark says below the log level of errors only.

    It ends with the session, or with this process.
    """
    since, told_after = time.monotonic(), patience
    with suppress(Exception):  # Whatever a session says that is stopped meanwhile.
        while True:
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            waited = time.monotonic() - since
            if not stages or any(stage is None or stage.numActiveTasks for stage in stages):
                since, told_after = time.monotonic(), patience
            elif waited >= told_after:
                teller.note(
                    f"Spark has run no task for {waited:.0f} s: it has no executor, or none with room; see [spark] "
                    "master, executor_memory, executor_cores and conf, and what else the cluster runs"
                )
                told_after *= 2
            time.sleep(min(POLL_SECONDS, patience))


def _end_with(process: int) -> None:
    """End this process, and so Spark, when another one is there no more."""
    while alive(process):
        time.sleep(POLL_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
