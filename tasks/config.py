"""Luigi's configuration sections, derived from the settings of pipeline/config.py.

Every setting stands in luigi.cfg (`[training] epochs = 5`), in a file that LUIGI_CONFIG_PATH names, or on
the command line (`--training-epochs 5`), the later before the earlier. `load()` reads and validates them.
A mistake ends the command with exit code 40 and one line that says what is wrong.
"""

from __future__ import annotations

import configparser
import logging
import os
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser, get_config
from luigi.task_register import Register

from pipeline.config import Settings, make_settings
from pipeline.config_results import StorageSettings
from pipeline.config_types import Section, suggest
from pipeline.errors import ArtifactError, SettingsError
from pipeline.remote import open_root
from pipeline.urls import is_url, without_password
from tasks import logs
from tasks.retries import patiently

EXIT_SETTINGS = 40
logger = logging.getLogger(__name__)

# What Luigi needs to be told so that its exit code can be trusted; luigi.cfg says the same and explains it.
LUIGI_SETTINGS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "core": {
        "local_scheduler": ("true", "no scheduler needs to run; false: use the one of scheduler_host, scheduler_port"),
        "autoload_range": ("true", "RangeDaily is there without another --module, to fill in days that were missed"),
        "log_level": ("WARNING", "INFO shows every step that Luigi takes"),
    },
    "worker": {
        "check_complete_on_run": ("true", "a task that ends without its output has failed"),
        "keep_alive": ("false", "true: wait for tasks that failed and try them again, see [scheduler]"),
    },
    "scheduler": {
        "retry_count": ("3", "tries of a task, where [worker] keep_alive is true"),
        "retry_delay": ("60", "seconds until the next try"),
    },
    "retcode": {
        "already_running": ("10", "the same command is running already"),
        "missing_data": ("20", "an input file is absent"),
        "not_run": ("25", "a task was not given leave to run"),
        "task_failed": ("30", "a stage failed: its message says why"),
        "scheduling_error": ("35", "an exception while tasks were looked up"),
        "unhandled_exception": ("40", "a setting is wrong, or anything else"),
    },
    "spark": {
        "master": (
            "",
            "where stages of engine = spark run: spark://host:7077, yarn, k8s://..., local[4]; empty: what Spark's own "
            "configuration says, else this machine",
        ),
        "conf": ("", "name=value | name=value: properties of Spark, such as spark.executor.memory=4g"),
    },
}
# Others that luigi.contrib.spark reads, each the option of spark-submit of that name.
SPARK_OPTIONS = (
    *("archives", "deploy_mode", "driver_class_path", "driver_cores", "driver_java_options", "driver_library_path"),
    *("driver_memory", "executor_cores", "executor_memory", "files", "hadoop_conf_dir", "jars", "num_executors"),
    *("packages", "properties_file", "py_files", "queue", "spark_submit", "supervise", "total_executor_cores"),
)

# Sections that Luigi 3.8 documents beside those of its own that it registers when it is imported.
OTHER_SECTIONS = (
    "batch_notifier",
    "bigquery",
    "cors",
    "datadog",
    "dropbox",
    "elasticsearch",
    "email",
    "execution_summary",
    "hadoop",
    "hadoopcli",
    "hdfs",
    "hive",
    "kubernetes",
    "logging",
    "mysql",
    "postgres",
    "prometheus",
    "redshift",
    "resources",
    "s3",
    "sendgrid",
    "smtp",
    "sns",
    "task_history",
    "webhdfs",
)


class Setting(luigi.Parameter[str]):
    """A setting as text; unlike Luigi's own, an empty value on the command line counts."""

    def _parse_or_no_value(self, x: str | None) -> Any:
        return super()._parse_or_no_value(x) if x is None else self.parse(x)


def as_text(value: object) -> str:
    """Return a value as it stands in luigi.cfg; `make_settings` reads it back.

    >>> as_text(("genre", "theme")), as_text(True), as_text(0.05)
    ('genre, theme', 'true', '0.05')
    """
    if isinstance(value, tuple):
        return ", ".join(as_text(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _derive(name: str, model: type[Section]) -> Any:
    """Return the Luigi Config class of a section: a parameter for each field of its model."""
    parameters = {
        field: Setting(default=as_text(info.default), description=info.description)
        for field, info in model.model_fields.items()
    }
    members = {"__module__": __name__, "__doc__": model.__doc__, **parameters}
    return types.new_class(name, (luigi.Config,), exec_body=lambda body: body.update(members))


SECTIONS: Mapping[str, Any] = {name: _derive(name, type(section)) for name, section in Settings()}


def load() -> Settings:
    """Return the settings of this run; raises SettingsError for an unknown section or name, or a bad value."""
    _check_file()
    try:
        _check_sections()
        values = {name: section() for name, section in SECTIONS.items()}
    except configparser.Error as error:
        raise SettingsError(f"{error}; in luigi.cfg a % is written %%, and ${{NAME}} is a variable") from None
    return make_settings(
        {name: {key: getattr(given, key) for key in given.get_param_names()} for name, given in values.items()}
    )


def _check_file() -> None:
    """Refuse a LUIGI_CONFIG_PATH that names no file: Luigi only warns and goes on without it."""
    path = os.environ.get("LUIGI_CONFIG_PATH")
    if path is not None and not Path(path).is_file():
        raise SettingsError(f"LUIGI_CONFIG_PATH = {path}: no such file in {Path.cwd()}")


def _check_sections() -> None:
    """Refuse sections and names that nobody would read."""
    config = get_config()
    known = [*SECTIONS, *LUIGI_SETTINGS, *OTHER_SECTIONS, *Register.task_names()]
    for section in config.sections():
        if section not in known:
            raise SettingsError(f"[{section}] is a section neither of Tagladder nor of Luigi{suggest(section, known)}")
    shared = config.defaults()
    for section, classes in _luigi_names().items():
        for name in config[section] if config.has_section(section) else ():
            close = get_close_matches(name.replace("-", "_"), classes, n=1, cutoff=0.8)
            if name not in shared and close and close[0] != name.replace("-", "_"):
                raise SettingsError(f"[{section}] {name}: Luigi has no such setting; did you mean '{close[0]}'?")
    for section, derived in SECTIONS.items():
        names = derived.get_param_names()
        for name in config[section] if config.has_section(section) else ():
            value = config.get(section, name)  # raises here where a % or ${NAME} is wrong
            if name not in names and name not in shared:
                given = without_password(f"{name} = {value}")
                raise SettingsError(
                    f"[{section}] {given}: no such setting{suggest(name, names) or '; there are ' + ', '.join(names)}"
                )


def _luigi_names() -> dict[str, list[str]]:
    """Return the names of the settings of those sections of Luigi's own that luigi.cfg lists."""
    from luigi.interface import core
    from luigi.retcodes import retcode
    from luigi.scheduler import scheduler
    from luigi.worker import worker

    configs = {"core": core, "retcode": retcode, "scheduler": scheduler, "worker": worker}
    names = {section: list(configs[section].get_param_names()) for section in LUIGI_SETTINGS if section in configs}
    return {**names, "spark": [*LUIGI_SETTINGS["spark"], *SPARK_OPTIONS]}


def check_flags(arguments: Sequence[str]) -> None:
    """Refuse a flag that is nearly one of ours: argparse would list every flag there is and suggest none.

    And a date that is empty, as a script may leave it: Luigi would run today's.

    >>> check_flags(["--module", "tasks", "ScoreCatalog", "--trainnig-epochs", "5"])
    Traceback (most recent call last):
    pipeline.errors.SettingsError: --trainnig-epochs: no such flag; did you mean '--training-epochs'?
    """
    if "--date=" in arguments or ("--date", "") in pairwise(arguments):
        raise SettingsError("--date: is empty; give a date as YYYY-MM-DD, or leave the flag out for today")
    flags = [f"--{section}-{name}".replace("_", "-") for section in SECTIONS for name in _names(section)]
    parameters = [(task, name.replace("_", "-")) for task, _, name, _ in Register.get_all_params()]
    known = {f"--{task}-{name}".replace("_", "-") for task, name in parameters}
    # The task that is run takes its own without its name before them.
    known |= {f"--{name}" for task, name in parameters if task not in SECTIONS}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if not flag.startswith("--") or any(name.startswith(flag) for name in known):
            continue
        close = [name for name in flags if name.endswith(flag[1:])] or get_close_matches(flag, flags, cutoff=0.85)
        if close:
            raise SettingsError(f"{flag}: no such flag; did you mean '{close[0]}'?")


def _names(section: str) -> list[str]:
    return list(SECTIONS[section].get_param_names())


def apply_luigi_settings() -> None:
    """Set what luigi.cfg of the project says about Luigi itself wherever the user's own files do not.

    Else a settings file without [retcode] would let a failed night end with exit code 0.
    """
    config = get_config()
    if not isinstance(config, LuigiConfigParser):
        return
    for section, values in LUIGI_SETTINGS.items():
        for name, (value, _) in values.items():
            if not config.has_option(section, name):
                config.set(section, name, value)


def luigi_workers() -> int:
    """Return how many tasks Luigi may run at once: `--workers`, or `[core] workers`."""
    from luigi.interface import core

    return max(1, int(core().workers))


@contextmanager
def mistakes_end_the_command() -> Iterator[None]:
    """Turn a mistake into an exit of Luigi's command line; let it through where Luigi is called by code."""
    try:
        yield
    except (ArtifactError, SettingsError) as error:
        if CmdlineParser.get_instance() is None:
            raise
        refuse_night(error)


def opened(storage: StorageSettings) -> Path:
    """Return the directory of all results; of a root in an object store its working copy, which is brought up to date.

    Raises ArtifactError where the store refuses, or does not answer after all tries, SettingsError for a root that
    cannot be a directory.
    """

    def opened() -> Path:
        if not is_url(storage.root):
            _check_root(storage.root)
        return open_root(storage)

    return patiently(opened, storage, note=note)


def _check_root(root: str) -> None:
    try:
        place = next(path for path in (Path(root), *Path(root).absolute().parents) if path.exists())
        what = None if place.is_dir() else f"{place} is no directory"
    except OSError as error:  # The name is too long, or a share is away.
        raise SettingsError(f"[storage] root = {root}: {error.strerror}; name another [storage] root") from error
    if what is not None:
        raise SettingsError(f"[storage] root = {root}: {what}; name another [storage] root")


def note(text: str) -> None:
    """Say why something is tried again, where no stage is under way that would."""
    print(f"storage: {text}", file=sys.stderr)


def refuse_night(error: ArtifactError | SettingsError) -> NoReturn:
    """Do what `refuse` does, and log it, unless a command only looks on; a log that is refused too is none."""
    from tasks.identities import looking_on

    if not looking_on.get():
        with suppress(ArtifactError, SettingsError, configparser.Error):
            given = SECTIONS["monitoring"]()
            values = {name: getattr(given, name) for name in given.get_param_names()}
            logs.install(make_settings({"monitoring": values}).monitoring)
            logger.error("%s", error, extra={"exit": EXIT_SETTINGS})
    refuse(error)


def refuse(error: ArtifactError | SettingsError) -> NoReturn:
    """End the command with the message of a mistake in the settings or in earlier results, and no traceback."""
    print(f"{'settings' if isinstance(error, SettingsError) else 'results'}: {error}", file=sys.stderr)
    raise SystemExit(EXIT_SETTINGS) from None
