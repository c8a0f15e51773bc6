"""Identity: the fingerprint of every stage, from what its result depends on and nothing else.

    clean     settings of [catalog] and [clean] but those on drift, digests of the input files
    features  [features], clean
    train     [network], [training], the engine's name, features, the weights to start from
    train_2   the same with another seed: the second member of an ensemble, of which `train` is the first
              (and its number, where it starts from the weights of a model; with cross_fit its fold, of how many)
    export    [export], clean, features, train of every member
    score     [scoring], export, the clean items that are scored
    plan      all of these settings and digests; with the date it names the plan of a run

A run that uses a published model again (pipeline/refresh.py) has no clean, features and train; its export is that
model, and its items are cleaned by the model's own rules. How many members there are, and when to train again, is no
part of a member: one more of them is trained alone (with cross_fit all are, as every fold is another one).

The check for drift (tasks/drift.py) comes after `clean` and bears on nobody's result: its own fingerprint has the clean
catalogs, its settings, and the last published run, which the plan has frozen. So does the gate (tasks/gate.py) after
`export`: its fingerprint has the model, the clean items, its settings, and the last accepted model of the plan. What
changed since the last published run (tasks/changes.py) comes after `score` and is named by the two runs; the report
(tasks/report.py) comes last and is named by the run, its plan and its changes.

What was invalidated (pipeline/invalidation.py) is made again under another fingerprint, and so is all that follows it.

Each has the stage's version number beside it. Paths are no part of it: two files with the same bytes and
the same kind of name (.csv, .jsonl.gz) are the same input. Neither are [storage] and what only changes speed.
rejects.parquet names its sources as they were called when the stage was published.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pipeline.config import Settings
from pipeline.config_learning import TrainingSettings
from pipeline.digests import fingerprint
from pipeline.errors import SettingsError
from pipeline.inputs import LAST, NAMED_BY, Role, extensions, input_paths
from pipeline.members import member_names, of_member
from pipeline.refresh import TRAINS, Choice

# Raise the number of a stage when its code gives other results for the same settings and inputs;
# tests/stage_code.py notices code that changed without it.
STAGE_VERSIONS: Mapping[str, int] = {
    "clean": 2,
    "drift": 1,
    "features": 3,
    "train": 4,
    "export": 4,
    "gate": 2,
    "score": 5,
    "changes": 1,
    "report": 1,
}

# The sections that a stage's results depend on, beside its upstreams'.
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "clean": ("catalog", "clean"),
    "features": ("features",),
    "train": ("network", "training"),
    "export": ("export",),
    "score": ("scoring",),
}
UPSTREAMS: Mapping[str, tuple[str, ...]] = {
    "features": ("clean",),
    "train": ("features",),
    "export": ("clean", "features", "train"),
    "score": ("export", "scored"),
}

WITHOUT_EFFECT = {"features": {"engine"}, "training": {"prefetch"}, "scoring": {"engine", "workers"}}
# Settings of [training] that say which networks are trained and when, not how one is.
PLANNED = {"members", "refresh"}
# Files that say how a model is made, and are not what it is made of.
RULES = {"taxonomy", "aliases", "stop_list"}
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
    inputs: Mapping[str, tuple[Input, ...]]  # by role; "scoring" and "start" are there where files are named
    fingerprints: Mapping[str, str]  # plan, start, clean, scored (the items to score), features, train ..., score
    choice: Choice
    recipe: str  # fingerprint of all settings that a model is made by, whatever it is made of
    basis: str  # what the export's fingerprint would be if the run trained from nothing

    def expected(self, role: Role) -> dict[str, str]:
        """Return the digest by path of the files that a role reads; an absent file has the digest ''."""
        return {found.path: found.digest or "" for found in self.inputs.get(role, ())}

    def of(self, stage: str) -> str:
        """Return the fingerprint of a stage. Raises SettingsError where the run uses a published model and has none."""
        if stage not in self.fingerprints:
            raise SettingsError(
                f"[training] refresh = {self.settings.training.refresh}: this run uses a published model again and has "
                f"no stage '{stage}'; --training-refresh changed makes it train"
            )
        return self.fingerprints[stage]


def identify(
    settings: Settings,
    digest: Callable[[str], str | None],
    choice: Choice = TRAINS,
    *,
    invalidated: Container[str] = frozenset(),
) -> Identity:
    """Return the identity of a run with these settings and the model that was chosen.

    `digest` gives None for a file that cannot be read. No stage gets a fingerprint that is among the `invalidated`.
    """
    engine = settings.training.model_copy(update={"engine": engine_name(settings.training)})
    settings = settings.model_copy(update={"training": engine})
    roles: tuple[Role, ...] = ("training", *(("scoring",) if settings.scoring.items else ()))
    inputs: dict[str, tuple[Input, ...]] = {role: _inputs(settings, role, digest) for role in roles}
    if start := _inputs(settings, "start", digest):
        inputs["start"] = start
        if len(start) > 1:
            raise SettingsError(f"[training] warm_start = {settings.training.warm_start}: {len(start)} files; name one")
    return _identity(settings, inputs, choice, invalidated)


def _identity(
    settings: Settings, inputs: Mapping[str, tuple[Input, ...]], choice: Choice, invalidated: Container[str]
) -> Identity:
    prints = {"plan": fingerprint({"settings": _everything(settings), "inputs": _contents(inputs)})}
    prints |= {} if choice.start is None else {"start": choice.start}
    if choice.model is None:
        prints |= _trained(settings, inputs, start=choice.start, invalidated=invalidated)
    else:
        role: Role = "scoring" if "scoring" in inputs else "training"
        cleaned = _clean_parts(settings, role, inputs[role]) | {"model": choice.model}
        prints |= {"scored": valid_fingerprint(cleaned, invalidated), "export": choice.model}
        prints |= {"clean": prints["scored"]} if role == "training" else {}
    prints["score"] = _stage(settings, "score", prints, invalidated=invalidated)
    basis = _trained(settings, inputs, start=None)["export"]  # What a model is made of, however often it was made.
    return Identity(settings, inputs, prints, choice, _recipe(settings, inputs), basis)


def with_last_accepted(identity: Identity, model: str, *, invalidated: Container[str] = frozenset()) -> Identity:
    """Return the identity of the same run with the last accepted model in place of its own, which was refused.

    Its inputs are those of the run: what has come to their directory since belongs to the next one.
    """
    refused = identity.fingerprints["export"]
    choice = Choice(model=model, reason=f"the last accepted one: {refused[:12]} was refused")
    return _identity(identity.settings, identity.inputs, choice, invalidated)


def valid_fingerprint(parts: Mapping[str, Any], invalidated: Container[str]) -> str:
    """Return the fingerprint of the parts, and of what was invalidated the next one that was not.

    >>> first = valid_fingerprint({"a": 1}, ())
    >>> second = valid_fingerprint({"a": 1}, {first})
    >>> first == fingerprint({"a": 1}), second == first, valid_fingerprint({"a": 1}, {first, second}) in (first, second)
    (True, False, False)
    """
    found, again = fingerprint(parts), 0
    while found in invalidated:
        again += 1
        found = fingerprint({**parts, "again": again})
    return found


def _trained(
    settings: Settings,
    inputs: Mapping[str, tuple[Input, ...]],
    *,
    start: str | None,
    invalidated: Container[str] = frozenset(),
) -> dict[str, str]:
    """Return the fingerprints of the stages before the last one, of a run that trains; `start` is a published model."""
    prints = {"clean": valid_fingerprint(_clean_parts(settings, "training", inputs["training"]), invalidated)}
    prints["scored"] = prints["clean"]
    if "scoring" in inputs:
        prints["scored"] = valid_fingerprint(_clean_parts(settings, "scoring", inputs["scoring"]), invalidated)
    prints["features"] = _stage(settings, "features", prints, invalidated=invalidated)
    starts: list[str | None] = [file.digest or "" for file in inputs.get("start", ())] or [start]
    for number, name in enumerate(member_names(settings), start=1):
        # Which member of an earlier ensemble a network starts from hangs on its number, beside its seed.
        more = {"start": starts[0], **({"member": str(number)} if number > 1 else {})} if starts != [None] else {}
        if settings.training.cross_fit:
            more |= {"fold": f"{number} of {settings.training.members}"}
        member = of_member(settings, number)
        prints[name] = _stage(member, "train", prints | more, *more, invalidated=invalidated)
    prints["export"] = _stage(settings, "export", prints, invalidated=invalidated)
    return prints


def _stage(
    settings: Settings, stage: str, prints: Mapping[str, str | None], *more: str, invalidated: Container[str]
) -> str:
    """Return the fingerprint of a stage, from its settings and its upstreams', of which there may be `more`."""
    upstreams = {name: prints[name] for name in (*upstreams_of(settings, stage), *more)}
    parts = {"settings": significant(settings, stage), "upstreams": upstreams}
    return valid_fingerprint({"stage": stage, "version": STAGE_VERSIONS[stage], **parts}, invalidated)


def upstreams_of(settings: Settings, stage: str) -> tuple[str, ...]:
    """Return the fingerprints that a stage is made from.

    >>> upstreams_of(Settings(training={"members": 2}), "export")
    ('clean', 'features', 'train', 'train_2')
    """
    names = UPSTREAMS.get(stage, ())
    return (*names[:-1], *member_names(settings)) if stage == "export" else names


def significant(settings: Settings, stage: str) -> dict[str, Any]:
    """Return the settings that a stage's results depend on, by section; paths are left out.

    >>> from pipeline.config import Settings
    >>> sorted(significant(Settings(), "score")["scoring"])
    ['batch_size', 'decoding', 'embeddings', 'n_best', 'part_items', 'thresholds']
    """
    if stage == "drift":
        return {"clean": settings.clean.model_dump(mode="json", include=DRIFT)}
    if stage == "gate":
        return {"gate": settings.gate.model_dump(mode="json", exclude={"enabled", "accept"})}
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


def _recipe(settings: Settings, inputs: Mapping[str, tuple[Input, ...]]) -> str:
    """Return the fingerprint of the settings that a model is made by, of the files of rules, and of the versions."""
    stages = ("clean", "features", "train", "export")
    made = {stage: [STAGE_VERSIONS[stage], significant(settings, stage)] for stage in stages}
    rules = [file for file in inputs["training"] if file.setting in RULES]
    start = [file.digest for file in inputs.get("start", ())] or settings.training.warm_start
    others = {"members": settings.training.members, "start": start}
    return fingerprint({**made, **others, "rules": _contents({"training": tuple(rules)})})


def _contents(inputs: Mapping[str, tuple[Input, ...]]) -> dict[str, list[list[str | None]]]:
    """Return kind and digest of the files by role, setting by setting, in the order of their paths."""
    return {role: [[file.setting, file.kind, file.digest] for file in files] for role, files in inputs.items()}


def _clean_parts(settings: Settings, role: Role, inputs: tuple[Input, ...]) -> dict[str, Any]:
    parts = {"settings": significant(settings, "clean"), "inputs": _contents({role: inputs})}
    return {"stage": "clean", "version": STAGE_VERSIONS["clean"], **parts}


def _everything(settings: Settings) -> dict[str, Any]:
    """Return all settings that bear on anything; a file of weights has its digest among the inputs."""
    planned = settings.training.model_dump(mode="json", include=PLANNED)
    planned["start"] = settings.training.warm_start == LAST
    return {**{stage: significant(settings, stage) for stage in SECTIONS}, "planned": planned}


def _dump(settings: Settings, section: str) -> dict[str, Any]:
    paths = {name for named in NAMED_BY.values() for at, name in named if at == section}
    without = WITHOUT_EFFECT.get(section, set()) | PLANNED | DRIFT | paths
    return dict(getattr(settings, section).model_dump(mode="json", exclude=without))
