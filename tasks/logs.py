"""Logs for machines: what Luigi, the engines and this project log, with the id of the run in every line."""

from __future__ import annotations

import datetime
import json
import logging
import secrets
import sys
from logging.handlers import WatchedFileHandler

from pipeline.config_nights import MonitoringSettings
from pipeline.errors import SettingsError

RUN = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"  # of this command and its workers
# Whose lines are taken. The handlers of others stay: what is on screen does not change.
LOGGERS = ("luigi", "luigi-interface", "pipeline", "tasks", "theano", "pytensor")
# What every record has; what else one has was given as `extra`.
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_installed: list[logging.Handler] = []
# Else Python would put on screen what nobody has asked for.
logging.getLogger("tasks").addHandler(logging.NullHandler())


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, run, pid, message, error, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what JSON does not know is shown as text."""
        fields = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "run": RUN,
            "pid": record.process,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _USUAL},
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """One line of words: time, run, level, logger, message."""

    def __init__(self) -> None:
        super().__init__(f"%(asctime)s {RUN} %(levelname)s %(name)s: %(message)s")


def install(monitoring: MonitoringSettings) -> None:
    """Log from now on as the settings say, in this process and those forked from it; once in a process.

    Raises SettingsError for a file that cannot be written.
    """
    if monitoring.log == "none" or _installed:
        return
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    try:
        if monitoring.log_file:  # Opened anew where logrotate has moved it.
            handler = WatchedFileHandler(monitoring.log_file, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"[monitoring] log_file = {monitoring.log_file}: cannot be written ({error.strerror}); name another file"
        ) from None
    handler.setFormatter(JsonLines() if monitoring.log == "json" else TextLines())
    _installed.append(handler)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    for name in ("pipeline", "tasks"):
        logging.getLogger(name).setLevel(logging.INFO)
