"""When to train again: a run trains a model, or uses one again that is published; its plan freezes which.

    changed   it trains whenever anything has changed that the model is made of
    7 days    as `changed`, but new inputs wait until the last published model is seven days old
    pinned    it never trains: the last published model is used, whatever the other settings say

A model counts from the date of the run that published it. Changed settings of what a model is made by ([catalog],
[clean], [features], [network], [training]), aliases, stops or a declared taxonomy train again at once, unless it is
pinned.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import exists, manifest
from pipeline.config_learning import TrainingSettings
from pipeline.errors import SettingsError
from pipeline.inputs import LAST
from pipeline.plans import damaged, read_plan
from pipeline.pointers import latest

CHANGED, PINNED = "changed", "pinned"


@dataclass(frozen=True)
class Choice:
    """Which model a run scores with, frozen by its plan."""

    model: str | None = None  # fingerprint of a published model that is used again; None: the run makes its own
    start: str | None = None  # fingerprint of the published model whose weights training starts from
    reason: str = "made from these files and settings"


TRAINS = Choice()


def planned(path: Path) -> Choice | None:
    """Return which model a plan has chosen, None where there is no plan yet. Raises ArtifactError for a damaged one."""
    content = read_plan(path)
    try:
        return None if content is None else Choice(**content["choice"])
    except (TypeError, KeyError) as error:
        raise damaged(path, error) from None


@dataclass(frozen=True)
class Origin:
    """What a published model was made of, as its manifest has it."""

    fingerprint: str
    date: str  # of the run that published it
    recipe: str  # fingerprint of the settings that it was made by
    basis: str  # what its fingerprint would be without the weights that training started from
    start: str | None  # fingerprint of the model whose weights training started from


def last_model(root: Path, *, until: str) -> Origin | None:
    """Return the model of the run that one of this date goes on from; None before the first, and where it is gone."""
    pointer = latest(root, until=until)
    return None if pointer is None else origin(root, pointer.model)


def origin(root: Path, model: str) -> Origin | None:
    """Return what a published model was made of; None where it is there no more, or an earlier version made it."""
    folder = root / "export" / model
    if not exists(folder):
        return None
    facts = manifest(folder).get("origin")
    return None if facts is None else Origin(fingerprint=model, **facts)


def choose(training: TrainingSettings, date: datetime.date, last: Origin | None, *, recipe: str, basis: str) -> Choice:
    """Return which model a run of this date uses.

    `recipe` is the fingerprint of its settings, `basis` that of the model that it would train from nothing.
    Raises SettingsError where the model is pinned and none is published.
    """
    warm = training.warm_start == LAST
    if training.refresh == PINNED:
        if last is None:
            raise SettingsError(
                "[training] refresh = pinned: no model is published yet below [storage] root; run once with "
                "--training-refresh changed"
            )
        return Choice(model=last.fingerprint, reason="[training] refresh = pinned")
    if last is not None and warm and last.basis == basis:
        return Choice(start=last.start)  # Nothing has changed since: its own model would otherwise be trained on daily.
    days = refresh_days(training.refresh)
    if days is not None and last is not None and last.recipe == recipe and last.basis != basis:
        age = (date - datetime.date.fromisoformat(last.date)).days
        if 0 <= age < days:
            reason = f"{age} of {days} days old, [training] refresh = {training.refresh}"
            return Choice(model=last.fingerprint, reason=reason)
    return Choice(start=last.fingerprint) if warm and last is not None else TRAINS


def refresh_days(refresh: str) -> int | None:
    """Return after how many days a model is trained again.

    >>> refresh_days("7 days"), refresh_days("changed")
    (7, None)
    """
    number = refresh.partition(" ")[0]
    return int(number) if number.isdigit() else None
