"""A Spark of two executors on this machine, each a process of its own: what the tests of pipeline/spark share."""

import os
import shutil
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData"  # starts in half the time
FIVE = {"numpy", "scipy", "h5py", "pyarrow", "pydantic"}
OF_PYDANTIC = {"pydantic_core", "typing_extensions", "typing_inspection", "annotated_types"}
OF_SPARK = {"pyspark", "py4j", "pipeline", "cython_runtime"}  # what Spark brings along, and sends
OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.extraJavaOptions": JAVA,
    "spark.executor.extraJavaOptions": JAVA,
    "spark.executor.memory": "512m",
    "spark.task.maxFailures": "2",  # 4 by default; each time a fresh process imports all it needs
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
# Python runs sitecustomize when it starts. This one hides all but what scoring needs, and writes who opens a model.
CUSTOMIZED = """
import os, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        if first in {allowed} or first.startswith("_") or first in sys.stdlib_module_names:
            return None
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def opened(event, arguments):
    if event == "open" and str(arguments[0]).endswith("model.h5"):
        with os.fdopen(os.open({log!r}, os.O_APPEND | os.O_CREAT | os.O_WRONLY), "w") as log:
            print(os.getpid(), file=log)

sys.meta_path.insert(0, NotInstalled())
sys.addaudithook(opened)
"""


def why_not():
    """Return why Spark cannot be tested here; nothing where it can."""
    if find_spec("pyspark") is None:
        return "pyspark is not installed (pip install pyspark): Spark is not tested"
    return "" if shutil.which("java") else "there is no Java on the path: Spark is not tested"


@contextmanager
def two_executors(folder, monkeypatch, *, master="local-cluster[2,1,1024]", **options):
    """Give a session; `folder` is for what Spark writes, and for the log `opened` of who opened a model."""
    import pyspark
    from pyspark.sql import SparkSession

    # Executors run where Spark lies: so it lies here.
    home = folder / "spark"
    home.mkdir()
    for part in Path(pyspark.__file__).parent.iterdir():
        (home / part.name).symlink_to(part)
    allowed = FIVE | OF_PYDANTIC | OF_SPARK
    (folder / "sitecustomize.py").write_text(CUSTOMIZED.format(allowed=allowed, log=str(folder / "opened")))
    monkeypatch.setenv("SPARK_HOME", str(home))
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(folder / "local"))
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("tests")
    for name, value in {**OPTIONS, "spark.executorEnv.PYTHONPATH": str(folder), **options}.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    try:
        yield session
    finally:
        session.stop()
        session.sparkContext._gateway.shutdown()


def executors():
    """Return the processes of the executors, by what the kernel says."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = command.read_bytes().split(b"\0")
        except OSError:
            continue
        # Those of this process alone: tests of other files may have their own.
        if any(b"CoarseGrainedExecutorBackend" in part for part in arguments) and os.getpid() in _above(command):
            found.append(int(command.parent.name))
    return sorted(found)


def _above(command):
    """Return the processes that a process comes from."""
    found, process = [], int(command.parent.name)
    while process > 1:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(process)
    return found
