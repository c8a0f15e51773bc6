"""Identity: the fingerprint of every stage, from what its result depends on and nothing else.

    clean     settings of [catalog] and [clean] but those on drift, digests of the input files
    features  [features], clean
    train     [network], [training], the engine's name, features
    export    clean, features, train
    score     [scoring], export, the clean items that are scored
    plan      all of these settings and digests; with the date it names the plan of a run

The check for drift (tasks/drift.py) comes after `clean` and bears on nobody's result: its own fingerprint has the clean
catalogs, its settings, and the last published run, which the plan has frozen.

Each has the stage's version number beside it. Paths are no part of it: two files with the same bytes and
the same kind of name (.csv, .jsonl.gz) are the same input. Neither are [storage] and what only changes speed.
rejects.parquet names its sources as they were called when the stage was published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pipeline.config import Settings
from pipeline.config_learning import TrainingSettings
from pipeline.digests import fingerprint
from pipeline.inputs import NAMED_BY, Role, extensions, input_paths

# Raise the number of a stage when its code gives other results for the same settings and inputs;
# tests/stage_code.py notices code that changed without it.
STAGE_VERSIONS: Mapping[str, int] = {
    "clean": 2,
    "drift": 1,
    "features": 2,
    "train": 2,
    "export": 3,
    "score": 3,
}

# The sections that a stage's results depend on, beside its upstreams'.
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "clean": ("catalog", "clean"),
    "features": ("features",),
    "train": ("network", "training"),
    "export": (),
    "score": ("scoring",),
}
UPSTREAMS: Mapping[str, tuple[str, ...]] = {
    "features": ("clean",),
    "train": ("features",),
    "export": ("clean", "features", "train"),
    "score": ("export", "scored"),
}

WITHOUT_EFFECT = {"prefetch"}
# Settings of [clean] that only say what may go on from there.
DRIFT = {"max_unseen_share", "max_tag_distance", "max_label_distance", "max_row_change", "accept_drift"}


@dataclass(frozen=True)
class Input:
    """One input file of a run."""

    path: str
    section: str
    setting: str
    digest: str | None  # None: there is no such file, or it may not be read

    @property
    def kind(self) -> str:
        """Return what decides how the file is read.

        >>> Input("data/Movies.CSV.gz", "catalog", "items", None).kind
        '.csv.gz'
        """
        return "".join(extensions(self.path))


@dataclass(frozen=True)
class Identity:
    """What a run is made from, and the fingerprint of each of its stages."""

    settings: Settings  # with the engine's name in place of `auto`
    inputs: Mapping[str, tuple[Input, ...]]  # by role; "scoring" is there where another catalog is scored
    fingerprints: Mapping[str, str]  # plan, clean, scored (the clean items to score), features, train, export, score

    def expected(self, role: Role) -> dict[str, str]:
        """Return the digest by path of the files that a role reads; an absent file has the digest ''."""
        return {found.path: found.digest or "" for found in self.inputs[role]}


def identify(settings: Settings, digest: Callable[[str], str | None]) -> Identity:
    """Return the identity of a run with these settings; `digest` gives None for a file that cannot be read."""
    engine = settings.training.model_copy(update={"engine": engine_name(settings.training)})
    settings = settings.model_copy(update={"training": engine})
    roles: tuple[Role, ...] = ("training", "scoring") if settings.scoring.items else ("training",)
    inputs: dict[str, tuple[Input, ...]] = {role: _inputs(settings, role, digest) for role in roles}
    prints = {"plan": fingerprint({"settings": _everything(settings), "inputs": _contents(inputs)})}
    prints["clean"] = fingerprint(_clean_parts(settings, "training", inputs["training"]))
    prints["scored"] = prints["clean"]
    if "scoring" in inputs:
        prints["scored"] = fingerprint(_clean_parts(settings, "scoring", inputs["scoring"]))
    for stage, upstreams in UPSTREAMS.items():
        parts = {"settings": significant(settings, stage), "upstreams": {name: prints[name] for name in upstreams}}
        prints[stage] = fingerprint({"stage": stage, "version": STAGE_VERSIONS[stage], **parts})
    return Identity(settings=settings, inputs=inputs, fingerprints=prints)


def significant(settings: Settings, stage: str) -> dict[str, Any]:
    """Return the settings that a stage's results depend on, by section; paths are left out.

    >>> from pipeline.config import Settings
    >>> sorted(significant(Settings(), "score")["scoring"])
    ['batch_size', 'decoding', 'n_best', 'part_items']
    """
    if stage == "drift":
        return {"clean": settings.clean.model_dump(mode="json", include=DRIFT)}
    return {section: _dump(settings, section) for section in SECTIONS[stage]}


def engine_name(training: TrainingSettings) -> str:
    """Return the engine that will train, found without importing it: `auto` is Theano where it is installed."""
    if training.engine != "auto":
        return training.engine
    return "theano" if find_spec("theano") is not None else "pytensor"


def _inputs(settings: Settings, role: Role, digest: Callable[[str], str | None]) -> tuple[Input, ...]:
    return tuple(
        Input(path=named.path, section=named.section, setting=named.setting, digest=digest(named.path))
        for named in input_paths(settings, role=role)
    )


def _contents(inputs: Mapping[str, tuple[Input, ...]]) -> dict[str, list[list[str | None]]]:
    """Return kind and digest of the files by role, setting by setting, in the order of their paths."""
    return {role: [[file.setting, file.kind, file.digest] for file in files] for role, files in inputs.items()}


def _clean_parts(settings: Settings, role: Role, inputs: tuple[Input, ...]) -> dict[str, Any]:
    parts = {"settings": significant(settings, "clean"), "inputs": _contents({role: inputs})}
    return {"stage": "clean", "version": STAGE_VERSIONS["clean"], **parts}


def _everything(settings: Settings) -> dict[str, Any]:
    return {stage: significant(settings, stage) for stage in SECTIONS}


def _dump(settings: Settings, section: str) -> dict[str, Any]:
    without = WITHOUT_EFFECT | DRIFT | {name for named in NAMED_BY.values() for at, name in named if at == section}
    return dict(getattr(settings, section).model_dump(mode="json", exclude=without))
