"""From the shell: `python -m tasks status`, and what else keeps an eye on the nightly job; `--help` lists all.

A command takes the flags of `luigi --module tasks ScoreCatalog` too: `python -m tasks explain --training-epochs 5`.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from itertools import islice

from pipeline.errors import PipelineError, SettingsError
from tasks import commands, config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 where something is wrong, 40 for a mistake in the settings."""
    own, flags = split(sys.argv[1:] if arguments is None else arguments)
    chosen = make_parser().parse_args(own)
    try:
        return int(chosen.run(chosen, flags))
    except SettingsError as error:
        config.refuse(error)
    except PipelineError as error:
        print(f"{chosen.command}: {error}", file=sys.stderr)
        return 1


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments of these commands, and Luigi's flags with their values.

    >>> split(["where", "--storage-root", "results", "--training-epochs=5", "1a2b", "--model"])
    (['where', '1a2b', '--model'], ['--storage-root', 'results', '--training-epochs=5'])
    """
    own, flags, left = [], [], iter(arguments)
    for argument in left:
        if not argument.startswith("--") or argument.partition("=")[0] in OWN:
            own.append(argument)
        else:
            flags += [argument] if "=" in argument else [argument, *islice(left, 1)]
    return own, flags


def a_date(text: str) -> datetime.date:
    """Return the date of YYYY-MM-DD; raises what argparse tells where it is none."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: is not a date as YYYY-MM-DD ({error})") from None


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the options for one file in place of the directory of a run."""
    each = parser.add_mutually_exclusive_group()
    each.add_argument("--model", action="store_true", help="the model file that made it instead")
    each.add_argument("--report", action="store_true", help="the page that tells of it instead")


def make_parser() -> argparse.ArgumentParser:
    """Return the commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks",
        description="Look after the nightly job.",
        epilog="Flags of luigi --module tasks ScoreCatalog may follow, such as --storage-root or --training-epochs.",
    )
    made = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (command, meaning) in COMMANDS.items():
        each = made.add_parser(name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.")
        each.set_defaults(run=command)
        for flag in FLAGS.get(name, ()):
            OPTIONS[flag](each)
    return parser


COMMANDS = {
    "status": (commands.status, "each stage of the run of a date: complete or not, age, duration, size"),
    "explain": (commands.explain, "why a stage would run: what has changed since the last run, old and new value"),
    "doctor": (commands.doctor, "what is wrong with machine, installation, settings or input files, and the remedy"),
    "where": (commands.where, "the directory of a published run: the latest, that of a date, or RUN"),
    "verify": (commands.verify, "compare all published files with the digests that they were published with"),
    "invalidate": (commands.invalidate, "make a stage run again, with all that follows it"),
    "rollback": (commands.rollback, "pin `latest` to an earlier run until --release"),
    "forget": (commands.forget, "undo the publication of a date that was a mistake; `latest` moves on from another"),
    "clean": (commands.clean, "remove what [storage] keep_runs does not keep, and what dead processes left"),
}
FLAGS = {
    "status": ("date", "json"),
    "explain": ("date", "against", "json"),
    "doctor": ("date", "json"),
    "where": ("run", "date", "file"),
    "verify": ("run", "date", "json"),
    "invalidate": ("stage", "date"),
    "rollback": ("run", "release"),
    "forget": ("mistake",),
    "clean": ("dry_run", "json"),
}
OPTIONS = {
    "date": lambda each: each.add_argument("--date", type=a_date, metavar="YYYY-MM-DD", help="date of the run (today)"),
    "json": lambda each: each.add_argument("--json", action="store_true", help="for machines"),
    "against": lambda each: each.add_argument(
        "--against",
        metavar="RUN",
        help="compare with the run of this date or fingerprint (that of the date, or latest)",
    ),
    "run": lambda each: each.add_argument(
        "run_name", nargs="?", metavar="RUN", help="a date, or the first digits of a run's fingerprint"
    ),
    "file": add_files,
    "stage": lambda each: each.add_argument("stage", choices=commands.STAGES, help="the stage that is made again"),
    "release": lambda each: each.add_argument(
        "--release", action="store_true", help="let `latest` name the newest date again"
    ),
    "mistake": lambda each: each.add_argument(
        "mistake", type=a_date, metavar="DATE", help="the date, YYYY-MM-DD; its results go by retention"
    ),
    "dry_run": lambda each: each.add_argument("--dry-run", action="store_true", help="only say what would be removed"),
}

OWN = {"--help", "--date", "--json", "--against", "--model", "--report", "--release", "--dry-run"}

if __name__ == "__main__":
    sys.exit(main())
