"""What a Spark session is told before it works for us: our package, files for its executors, one thread a task."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from pipeline.cores import ONE_THREAD
from pipeline.digests import sha256_of
from pipeline.spark.executor import Shipped

PACKAGE = Path(__file__).parents[1]
OF_AN_EXECUTOR = {**ONE_THREAD, "ARROW_DEFAULT_MEMORY_POOL": "system", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
MOMENT = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file knows


def own_python() -> None:
    """Have the executors of this machine run this Python, unless the user named another one.

    Those of a cluster run `python3` there, or what PYSPARK_PYTHON or spark.pyspark.python says.
    """
    from pyspark import SparkConf

    if str(SparkConf().get("spark.master", "local")).startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def prepare(session: Any) -> None:
    """Send our package to the executors of a session, which need no installation of ours, and give tasks one thread.

    Of their errors it has them tell the causes too.
    """
    session.conf.set("spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled", "false")
    session.sparkContext.environment.update(OF_AN_EXECUTOR)
    session.sparkContext.addPyFile(str(_packed(_folder())))


def ship(session: Any, file: Path) -> Shipped:
    """Have a file brought to every executor that needs it, under a name that no other content has."""
    digest, context = sha256_of(file), session.sparkContext
    copy = _folder() / f"{digest[:16]}-{file.name}"
    if not copy.exists():
        shutil.copyfile(file, copy)
        context.addFile(str(copy))
    return Shipped(copy.name, digest)


def _folder() -> Path:
    """Return a directory that lasts as long as the session: from there its executors take files, new ones too."""
    from pyspark import SparkFiles

    folder = Path(SparkFiles.getRootDirectory()) / "tagladder"
    folder.mkdir(exist_ok=True)
    return folder


def _packed(folder: Path) -> Path:
    """Return our package as a file that Python imports from; its name changes with what is in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(PACKAGE.rglob("*.py")):
            name = path.relative_to(PACKAGE.parent).as_posix()
            archive.writestr(zipfile.ZipInfo(name, MOMENT), path.read_bytes(), zipfile.ZIP_DEFLATED)
    path = folder / f"pipeline-{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.zip"
    path.write_bytes(content.getvalue())
    return path
