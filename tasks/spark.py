"""A stage on Spark, by Luigi's own support: luigi.contrib.spark.SparkSubmitTask, with the options of its [spark].

Not PySparkTask: that pickles the task and makes it anew in the program, and a stage of ours is what the settings of
its process make it. So the program (pipeline/spark/app.py) is told settings, paths and options by a file, and writes
into the directory that is being built; publication, fingerprint, locks and tries stay with the stage.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import luigi
from luigi.configuration import get_config
from luigi.contrib.external_program import ExternalProgramRunError
from luigi.contrib.spark import SparkSubmitTask

from pipeline import files
from pipeline.config import Settings
from pipeline.doctor import Check
from pipeline.errors import ArtifactError, SettingsError, WorkerError
from pipeline.progress import Progress
from pipeline.refusals import in_words
from pipeline.spark import PROGRAM
from pipeline.spark.messages import Listener

SECTION = "spark"
JOB, PROPERTIES = "job.json", "spark.properties"
INSTALL = "pip install pyspark (4.x), or set SPARK_HOME, or [spark] spark-submit to the command"


class SparkProgram(SparkSubmitTask):
    """One stage as a program on Spark."""

    work = luigi.Parameter(description="the directory of what it needs: what to do, properties, what Spark leaves")
    app = str(PROGRAM)  # type: ignore[assignment] # Luigi leaves both None
    name = "tagladder"  # type: ignore[assignment]
    # Luigi looks for a line that Spark does not write by default, in a process that would not end by itself.
    stream_for_searching_tracking_url = "none"
    deploy_mode = "client"  # whatever spark-defaults.conf says

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
    def conf(self) -> None:
        """Return nothing: on the command line, in Luigi's log, everybody could read the passwords of `conf`."""

    @property
    def properties_file(self) -> str:
        """Return the file of `write_properties`."""
        return str(Path(self.work, PROPERTIES))

    def write_properties(self) -> None:
        """Write `conf` of [spark] for nobody else to read, after the user's own file, whose values it replaces."""
        path, named = Path(self.properties_file), _option("properties-file")
        path.touch(mode=0o600)
        lines = [f"{_escaped(name)}={_escaped(value)}\n" for name, value in properties().items()]
        path.write_text((f"{Path(named).read_text('utf-8')}\n\n" if named else "") + "".join(lines), "utf-8")

    def spark_command(self) -> list[str]:
        """Return the command; where the user has no file of properties, Spark's defaults count as they would."""
        return [*super().spark_command(), *([] if _option("properties-file") else ["--load-spark-defaults"])]

    def app_options(self) -> list[str]:
        """Return what the program is told."""
        return [str(Path(self.work, JOB))]

    def program_environment(self) -> dict[str, str]:
        """Return the environment: where Spark is, and where it puts its files, which a killed one leaves.

        spark-submit of an installed pyspark would look for its home with another Python.
        """
        home, environment = None if _option("spark-submit") else _home(), super().program_environment()
        if "spark.local.dir" not in Path(self.properties_file).read_text("utf-8"):
            environment.setdefault("SPARK_LOCAL_DIRS", str(self.work))
        temporary = shlex.quote(f"-Djava.io.tmpdir={self.work}")  # for Java's libraries; of two the last one counts
        environment["SPARK_SUBMIT_OPTS"] = f"{temporary} {environment.get('SPARK_SUBMIT_OPTS', '')}".rstrip()
        return {**environment, **({"SPARK_HOME": home} if home else {})}


def run_on_spark(
    settings: Settings, stage: str, folder: Path, progress: Progress, *, paths: Mapping[str, Path], **options: Any
) -> None:
    """Do a stage by a program on Spark; what it writes into `folder` is all that is left.

    Raises the PipelineError or OSError that the program told, and WorkerError where it ended without a word.
    """
    work = folder.with_name("spark").absolute()
    files.remove(work)
    work.mkdir(mode=0o700)
    program, listener = SparkProgram(work=str(work)), Listener(work / "messages.jsonl", progress)
    job = {
        "stage": stage,
        "settings": settings.model_dump(mode="json"),
        "paths": {name: str(path.absolute()) for name, path in {**paths, "folder": folder}.items()},
        "options": options,
        "messages": str(work / "messages.jsonl"),
        "properties": program.properties_file,
        "parent": os.getpid(),
    }
    (work / JOB).write_text(json.dumps(job), "utf-8")
    try:
        program.write_properties()
        with listener.listening():
            program.run()
    except ExternalProgramRunError as error:
        # Its own text has the whole environment, passwords included.
        failure = listener.failure() or _ended(error)
        raise failure from failure.__cause__
    finally:
        files.remove(work / PROPERTIES)
        with suppress(ArtifactError):  # What a killed Spark still writes goes with the stage's directory of work.
            files.remove(work)


def check(settings: Settings) -> None:
    """Raise SettingsError where a stage is to run on Spark, and Spark cannot be started from here."""
    wanting = _wanting(settings)
    if not wanting:
        return
    place = f"[{wanting[0]}] engine = spark"
    if spark_submit() is None:
        raise SettingsError(f"{place}: there is no {_option('spark-submit') or 'spark-submit'}; {INSTALL}")
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if "JAVA_HOME" in os.environ else Path("java")
    if shutil.which(java) is None:
        raise SettingsError(f"{place}: there is no {java}; Spark 4 needs Java 17 or 21, and JAVA_HOME where it is")
    named = _option("properties-file")
    if named and not files.readable(Path(named)):
        raise SettingsError(f"[spark] properties-file = {named}: cannot be read; name another file, or leave it out")
    modes = {"deploy-mode =": _option("deploy-mode")}
    modes |= {f"conf: {name} =": properties().get(name) for name in ("spark.submit.deployMode", "deployMode")}
    for place, mode in modes.items():
        if mode not in (None, "", "client"):
            raise SettingsError(f"[spark] {place} {mode}: the driver writes below [storage] root; set client")


def examine(settings: Settings) -> Iterator[Check]:
    """Give whether Spark can be started from here, where a stage is to run on it."""
    try:
        check(settings)
    except SettingsError as error:
        fact, _, remedy = str(error).partition("; ")
        yield Check("Spark", "wrong", fact, remedy)
    else:
        if _wanting(settings):
            yield Check("Spark", "ok", f"{spark_submit()}, on {_option('master') or 'what its own settings say'}")


def properties() -> dict[str, str]:
    """Return `conf` of [spark], where spaces around names and values do not count; raises SettingsError.

    Luigi's own reading ends in a ValueError that says neither where nor what.
    """
    found, text = {}, (_option("conf") or "").strip()
    for part in text.split("|") if text else ():
        name, equals, value = (each.strip() for each in part.partition("="))
        if not (name and equals):
            raise SettingsError(
                f"[spark] conf: {part.strip()!r} is no property; write name=value | name=value, and no | at the end"
            )
        found[name] = value
    return found


def spark_submit() -> str | None:
    """Return the command: of [spark], of SPARK_HOME, of an installed pyspark, or on the path; None for none of them."""
    home = _home()
    return shutil.which(_option("spark-submit") or (Path(home, "bin", "spark-submit") if home else "spark-submit"))


def _wanting(settings: Settings) -> list[str]:
    """Return the sections whose stages are to run on Spark."""
    return [section for section in ("features", "scoring") if getattr(settings, section).engine == "spark"]


def _home() -> str | None:
    """Return the directory of Spark."""
    if "SPARK_HOME" in os.environ:
        return os.environ["SPARK_HOME"]
    found = find_spec("pyspark")
    return str(Path(found.origin).parent) if found is not None and found.origin else None


def _option(name: str) -> str | None:
    value: str | None = get_config().get(SECTION, name, None)
    return value


def _escaped(text: str) -> str:
    """Return a name or a value as a file of Java's properties has it.

    >>> print(_escaped("a=b c"))
    a\\=b\\ c
    """
    return re.sub(r"[\\:=#! ]", r"\\\g<0>", text).replace("\n", "\\n").replace("\t", "\\t")


def _ended(error: ExternalProgramRunError) -> WorkerError:
    """Return the error of a program that told none."""
    # Java says on the one that it cannot start, Spark on the other what it thinks of the program.
    lines = [line for told in (error.out, error.err) for line in (told or "").splitlines() if line.strip()]
    told = f"; its last words: {' | '.join(lines[-3:])[:600]}" if lines else ""
    ended = WorkerError(f"Spark {error.message.rstrip(':').lower()}{told}; nothing was published")
    ended.__cause__ = in_words("\n".join(lines))
    return ended
