"""A standalone cluster of two hosts, 127.0.0.2 and 127.0.0.3: Spark tries a slow task a second time on another host."""

import os
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_model import make_items, make_model
from spark_session import JAVA, two_executors, why_not

from pipeline.config import Settings
from pipeline.progress import SILENT
from pipeline.score_catalog import score

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
]
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.minTaskRuntime": "1s",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.multiplier": "1.5",
    "spark.driver.host": "127.0.0.1",
    "spark.cores.max": "2",
}


def start(stack, folder, name, *arguments):
    """Start a daemon of Spark, which ends with the test."""
    import pyspark

    home = Path(pyspark.__file__).parent
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_DAEMON_JAVA_OPTS": JAVA,
        "SPARK_LOCAL_DIRS": str(folder),
    }
    with (folder / f"{name.lower()}-{len(list(folder.iterdir()))}.log").open("wb") as log:
        command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{name.lower()}.{name}", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def wait_for(port):
    deadline = time.monotonic() + 120
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_task_that_is_run_twice_at_once_counts_once(tmp_path, monkeypatch):
    make_model().save(tmp_path / "model.h5")
    pq.write_table(pa.Table.from_batches([make_items(200)]), tmp_path / "items.parquet")
    pq.write_table(pa.table({"scope": ["item", "tag"]}), tmp_path / "rejects.parquet")
    settings, log = Settings(scoring={"workers": 1, "batch_size": 8}), tmp_path / "attempts"
    for name in ("here", "there"):
        (tmp_path / name / "build").mkdir(parents=True)
    score(settings, tmp_path / "model.h5", tmp_path, tmp_path / "here" / "build", run="r1", progress=SILENT)
    from pipeline.spark import scoring
    from pipeline.spark.cluster import prepare

    class HangsAtFirst(scoring.ScoreRows):
        def __call__(self, batches):
            from pyspark import TaskContext

            def watched():
                for batch in batches:
                    attempt = TaskContext.get().attemptNumber()
                    for number in batch.column(0).to_pylist():
                        with log.open("a") as file:
                            print(number, attempt, file=file)
                        if attempt == 0 and number == 2:
                            time.sleep(120)
                    yield batch

            return super().__call__(watched())

    monkeypatch.setattr(scoring, "ScoreRows", HangsAtFirst)
    with ExitStack() as stack, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        (tmp_path / "spark-of-the-cluster").mkdir()
        daemons = (stack, tmp_path / "spark-of-the-cluster")
        start(*daemons, "Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0")
        wait_for(port)
        for host in ("127.0.0.2", "127.0.0.3"):
            options = ("--host", host, "--cores", "1", "--memory", "1g", "--webui-port", "0")
            start(*daemons, "Worker", *options, "--work-dir", str(tmp_path / host), f"spark://127.0.0.1:{port}")
        session = stack.enter_context(
            two_executors(tmp_path, monkeypatch, master=f"spark://127.0.0.1:{port}", **SPECULATION)
        )
        prepare(session)
        started = time.monotonic()
        paths = (tmp_path / "model.h5", tmp_path, tmp_path / "there" / "build")
        scoring.score_on_spark(session, settings, *paths, run="r1", progress=SILENT, shard_items=16)
        assert time.monotonic() - started < 110
    assert {"2 0", "2 1"} <= set(log.read_text().splitlines())
    here, there = (sorted((tmp_path / name / "build").rglob("*")) for name in ("here", "there"))
    assert [file.read_bytes() for file in here if file.is_file()] == [
        file.read_bytes() for file in there if file.is_file()
    ]
