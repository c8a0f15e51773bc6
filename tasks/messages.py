"""What a person sees: Luigi's own words for what the user can mend are made short."""

from __future__ import annotations

import logging

from pipeline.errors import PipelineError
from pipeline.refusals import refusal


class ShortErrors(logging.Filter):
    """Write `BuildFeatures: message` for an error of ours, without traceback; keep the traceback of others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record in place; drop the one on absent files, which are told with their setting."""
        if str(record.msg).startswith("Data for %s does not exist"):
            return False
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if str(error).startswith("Unfulfilled dependenc"):
            return False  # Another stage has found damaged what this one rests on, and has told so.
        if isinstance(error, PipelineError):
            task = record.args[-1] if isinstance(record.args, tuple) and record.args else "task"
            record.msg, record.args = "%s: %s", (getattr(task, "task_family", task), error)
            record.exc_info = record.exc_text = None
        if isinstance(error, OSError) and (cause := refusal(error)):
            record.msg = "%s; free space or give write permission below [storage] root, then run the same command again"
            record.args, record.exc_info, record.exc_text = (cause,), None, None
        if isinstance(error, MemoryError):
            record.msg = "out of memory: %s; lower [network] hidden, the batch sizes or [features] hash_width"
            record.args, record.exc_info, record.exc_text = (str(error),), None, None
        return True


def install() -> None:
    """Put the filter on Luigi's logger, once."""
    logger = logging.getLogger("luigi-interface")
    if not any(isinstance(known, ShortErrors) for known in logger.filters):
        logger.addFilter(ShortErrors())
