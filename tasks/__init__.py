"""The nightly job in Luigi: `luigi --module tasks ScoreCatalog`.

Tasks say what a stage requires, what it leaves behind and which function of `pipeline` does the work; the
function is imported within `run`, so that looking at finished work imports no numerical library.
"""

import signal
import sys
from pathlib import Path

from pipeline.errors import SettingsError
from tasks import config, messages, once, records, supervisor  # noqa: F401 (records listens to Luigi's events)
from tasks.clean import CleanTags
from tasks.drift import CheckDrift
from tasks.export import ExportModel
from tasks.features import BuildFeatures
from tasks.gate import CheckModel
from tasks.plan import InputFile, PlanRun, PublishedModel
from tasks.report import Report
from tasks.score import ScoreCatalog
from tasks.train import TrainModel

__all__ = [
    "BuildFeatures",
    "CheckDrift",
    "CheckModel",
    "CleanTags",
    "ExportModel",
    "InputFile",
    "PlanRun",
    "PublishedModel",
    "Report",
    "ScoreCatalog",
    "TrainModel",
]

config.apply_luigi_settings()
messages.install()
once.install()
if Path(sys.argv[0]).stem == "luigi" or Path(sys.argv[0]).parent.name == "luigi":  # the script, or python -m luigi
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C ends the command as SIGTERM does: at once, as what is on the disk is whole at any time.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        config.check_flags(sys.argv[1:])
        supervisor.supervise()
    except SettingsError as error:
        config.refuse_night(error)
