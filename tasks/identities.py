"""Which identities the tasks of this process have: settings and inputs are looked at once a run, by its root task."""

from __future__ import annotations

import datetime
import sys
from contextlib import suppress
from contextvars import ContextVar
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from pipeline import downloads, files, invalidation, leases, remote_leases
from pipeline.config import Settings
from pipeline.digests import Digests
from pipeline.errors import ArtifactError, SettingsError
from pipeline.identity import Identity, identify
from pipeline.identity import with_last_accepted as by_last_accepted
from pipeline.inputs import LAST, with_date
from pipeline.invalidation import rests_on
from pipeline.manifests import is_broken
from pipeline.plans import mend, read_plan
from pipeline.refresh import CHANGED, PINNED, choose, last_model, planned
from pipeline.remote import remote_of, root_of
from pipeline.urls import is_url
from tasks import config, logs
from tasks.once import lock_below
from tasks.retries import patiently

# Identities of this process by date and the fingerprint of any of their stages: a run is looked up once, at its
# root task; upstream tasks are given their fingerprint and find the same identity here.
known: dict[tuple[datetime.date, str], Identity] = {}
# Whether this process only looks at the stages and runs none of them.
looking_on: ContextVar[bool] = ContextVar("looking_on", default=False)


def known_fingerprint(stage: str, date: datetime.date, given: str) -> str:
    """Return a given fingerprint that this process knows, else the current one of the stage."""
    if (date, given) in known:
        return given
    with config.mistakes_end_the_command():
        identity = current_identity(date)
        if not looking_on.get():
            logs.install(identity.settings.monitoring)
        possible = [identity, *with_last_accepted(identity, date)] if given else [identity]
        fingerprint = next((found.of(stage) for found in possible if given in found.fingerprints.values()), None)
        if given and fingerprint != given:
            raise SettingsError(
                f"--fingerprint {given}: settings and input files now give {identity.of(stage)}; leave the flag out"
            )
        for found in reversed(possible):  # What two of them share is the first one's.
            if not looking_on.get():
                begin(found)
            known.update({(date, name): found for name in found.fingerprints.values()})
    return identity.of(stage) if fingerprint is None else fingerprint


def with_last_accepted(identity: Identity, date: datetime.date) -> list[Identity]:
    """Return the run of the same plan that scores with the last accepted model, where it may come to that.

    A worker learns by its fingerprint alone that a refused model has its place taken.
    """
    root = root_of(identity.settings.storage)
    plan = read_plan(root / plan_name(date, identity))
    last = None if plan is None else plan["last_accepted_model"]
    if last is None or identity.choice.model is not None:
        return []
    return [by_last_accepted(identity, last, invalidated=invalidation.invalidated(root))]


def begin(identity: Identity) -> None:
    """Say that this process needs these results, before any of them is looked for."""
    root = root_of(identity.settings.storage)
    lock_below(root)
    names, remote = identity.fingerprints.values(), remote_of(root)
    if remote is not None:  # Other machines remove there what nobody says to need.
        hold = partial(remote_leases.hold, remote, names)
        patiently(hold, identity.settings.storage, note=config.note)
    # Where nothing can be written, nothing can be removed either; the first task to write says what is wrong.
    with suppress(ArtifactError):
        leases.hold(root, names)


def current_identity(date: datetime.date) -> Identity:
    """Return the identity that the settings and the input files of a date have now; raises SettingsError."""
    settings = with_date(config.load(), date)
    root = config.opened(settings.storage)
    found = partial(_found, settings, root, date)
    try:
        try:
            return patiently(found, settings.storage, note=config.note)
        except ArtifactError as error:
            if not is_broken(error):
                raise
            # The last model: no disk will read it again, and `verify` tells of it.
            return patiently(partial(found, has_last=False), settings.storage, note=config.note)
    except OSError as error:
        what = f"{error.filename}: cannot be read ({error.strerror})"
        raise SettingsError(f"input: {what}; run the same command again when it can be") from error


def _found(settings: Settings, root: Path, date: datetime.date, *, has_last: bool = True) -> Identity:
    if not looking_on.get():
        _mend_plans(root)
    digests = Digests(root / "digests.json")
    # Asked twice about a file, it must not have changed in between.
    digest = cache(partial(_digest, digests))
    again = invalidation.invalidated(root)
    identity = identify(settings, digest, invalidated=again)
    engine = identity.settings.training.engine
    if find_spec(engine) is None:
        raise SettingsError(f"[training] engine = {engine}: is not installed; install it, or set auto")
    # Who looks on starts nothing, and may do so from where Spark is not.
    if "spark" in (settings.features.engine, settings.scoring.engine) and not looking_on.get():
        from tasks import spark

        spark.check(settings)
    if settings.training.refresh != CHANGED or settings.training.warm_start == LAST:
        # The plan decides where it is written already: what is published may have changed since.
        last = last_model(root, until=str(date)) if has_last else None
        if last is not None and settings.training.refresh != PINNED and rests_on(root, last.fingerprint, again):
            last = None
        choice = planned(root / plan_name(date, identity)) or choose(
            settings.training, date, last, recipe=identity.recipe, basis=identity.basis
        )
        identity = identify(settings, digest, choice, invalidated=again)
    if digests.changed and not looking_on.get():
        # A memory that only saves time; the plan is the first file that must be written.
        with suppress(ArtifactError):
            files.write_text(digests.memory, digests.as_json(), work=root / "work")
    return identity


def _digest(digests: Digests, path: str) -> str | None:
    """Return the SHA-256 of an input file, None where there is none that may be read."""
    if is_url(path):
        return downloads.digest(path)
    try:
        return digests.of(path) if files.readable(Path(path)) else None
    except OSError as error:
        error.filename = path  # Who opens a file names it, who reads on does not.
        raise


def _mend_plans(root: Path) -> None:
    """Write again what of the plans is damaged, and say so; what cannot be written stays for the next run."""
    with suppress(ArtifactError):
        for line in mend(root):
            print(line, file=sys.stderr)


def plan_name(date: datetime.date, identity: Identity) -> str:
    """Return the path of the plan of a date, relative to the root."""
    return f"plan/{date}-{identity.fingerprints['plan']}.json"
