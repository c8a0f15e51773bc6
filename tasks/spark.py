"""A stage on Spark, by Luigi's own support: luigi.contrib.spark.SparkSubmitTask, with the options of its [spark].

Not PySparkTask: that pickles the task and makes it anew in the program, and a stage of ours is what the settings of
its process make it. So the program (pipeline/spark/app.py) is told settings, paths and options by a file, and writes
into the directory that is being built; publication, fingerprint, locks and tries stay with the stage.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import luigi
from luigi.configuration import get_config
from luigi.contrib.external_program import ExternalProgramRunError
from luigi.contrib.spark import SparkSubmitTask

from pipeline import files
from pipeline.config import Settings
from pipeline.errors import SettingsError, WorkerError
from pipeline.progress import Progress
from pipeline.spark import PROGRAM
from pipeline.spark.messages import Listener

SECTION = "spark"
INSTALL = "pip install pyspark (4.x), or set SPARK_HOME, or [spark] spark-submit to the command"


class SparkProgram(SparkSubmitTask):
    """One stage as a program on Spark."""

    job = luigi.Parameter(description="the file that says what to do")
    app = str(PROGRAM)  # type: ignore[assignment] # Luigi leaves both None
    name = "tagladder"  # type: ignore[assignment]
    # Luigi looks for a line that Spark does not write by default, in a process that would not end by itself.
    stream_for_searching_tracking_url = "none"

    @property
    def spark_submit(self) -> str:
        """Return the command; raises SettingsError where there is none."""
        found = spark_submit()
        if found is None:
            raise SettingsError(f"there is no {_option('spark-submit') or 'spark-submit'}; {INSTALL}")
        return found

    @property
    def pyspark_driver_python(self) -> str | None:
        """Return this Python for the driver, which needs what this process needs, unless another one is named."""
        return None if "PYSPARK_DRIVER_PYTHON" in os.environ else sys.executable

    @property
    def conf(self) -> dict[str, str]:
        """Return `conf` of [spark], where spaces around names and values do not count."""
        found = self._dict_config(_option("conf")) or {}
        return {name.strip(): value.strip() for name, value in found.items()}

    def app_options(self) -> list[str]:
        """Return what the program is told."""
        return [str(self.job)]

    def program_environment(self) -> dict[str, str]:
        """Return the environment; spark-submit of an installed pyspark would look for its home with another Python."""
        home = None if _option("spark-submit") else _home()
        return {**super().program_environment(), **({"SPARK_HOME": home} if home else {})}


def run_on_spark(
    settings: Settings, stage: str, folder: Path, progress: Progress, *, paths: Mapping[str, Path], **options: Any
) -> None:
    """Do a stage by a program on Spark; what it writes into `folder` is all that is left.

    Raises the PipelineError or OSError that the program told, and WorkerError where it ended without a word.
    """
    work = folder.with_name("spark")
    files.remove(work)
    work.mkdir()
    listener = Listener(work / "messages.jsonl", progress)
    job = {
        "stage": stage,
        "settings": settings.model_dump(mode="json"),
        "paths": {name: str(path.absolute()) for name, path in {**paths, "folder": folder}.items()},
        "options": options,
        "messages": str((work / "messages.jsonl").absolute()),
        "parent": os.getpid(),
    }
    (work / "job.json").write_text(json.dumps(job), "utf-8")
    try:
        with listener.listening():
            SparkProgram(job=str((work / "job.json").absolute())).run()
    except ExternalProgramRunError as error:
        # Its own text has the whole environment, passwords included.
        raise listener.failure() or _ended(error) from None


def check(settings: Settings) -> None:
    """Raise SettingsError where a stage is to run on Spark, and Spark cannot be started from here."""
    wanting = [section for section in ("features", "scoring") if getattr(settings, section).engine == "spark"]
    if not wanting:
        return
    place = f"[{wanting[0]}] engine = spark"
    if spark_submit() is None:
        raise SettingsError(f"{place}: there is no {_option('spark-submit') or 'spark-submit'}; {INSTALL}")
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if "JAVA_HOME" in os.environ else Path("java")
    if shutil.which(java) is None:
        raise SettingsError(f"{place}: there is no {java}; Spark 4 needs Java 17 or 21, and JAVA_HOME where it is")
    if _option("deploy-mode") not in (None, "", "client"):
        raise SettingsError(
            f"[spark] deploy-mode = {_option('deploy-mode')}: the driver writes below [storage] root; set client"
        )


def spark_submit() -> str | None:
    """Return the command: of [spark], of SPARK_HOME, of an installed pyspark, or on the path; None for none of them."""
    home = _home()
    return shutil.which(_option("spark-submit") or (Path(home, "bin", "spark-submit") if home else "spark-submit"))


def _home() -> str | None:
    """Return the directory of Spark."""
    if "SPARK_HOME" in os.environ:
        return os.environ["SPARK_HOME"]
    found = find_spec("pyspark")
    return str(Path(found.origin).parent) if found is not None and found.origin else None


def _option(name: str) -> str | None:
    value: str | None = get_config().get(SECTION, name, None)
    return value


def _ended(error: ExternalProgramRunError) -> WorkerError:
    """Return the error of a program that told none."""
    # Java says on the one that it cannot start, Spark on the other what it thinks of the program.
    lines = [line for told in (error.out, error.err) for line in (told or "").splitlines() if line.strip()]
    told = f"; its last words: {' | '.join(lines[-3:])[:600]}" if lines else ""
    return WorkerError(f"Spark {error.message.rstrip(':').lower()}{told}; nothing was published")
