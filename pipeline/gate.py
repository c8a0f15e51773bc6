"""Between stages 4 and 5: is a new model good enough to score, beside the one that was accepted last?

Both are asked about the same validation items of today. A drop of accuracy refuses the new one where it is larger than
the setting allows, and than chance explains: retrained on a slightly other catalog, a network answers some items
otherwise, and of few items the accuracy moves by itself. Where no model was accepted before, each level must be right
more often than by always saying its most frequent class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts import exists, verified
from pipeline.config_nights import GateSettings
from pipeline.errors import FeatureError, ModelError
from pipeline.export import PARITY
from pipeline.judging import Right, covered, labelled, predict, right, some_items
from pipeline.model import Model, load_model
from pipeline.taxonomy import Taxonomy

CHANCE = 1.645  # standard errors that one side of 95% of a normal distribution has
CALIBRATION = "max_calibration_error"
AGREEMENT = "parity"
VERDICT = "verdict.json"


@dataclass(frozen=True)
class Check:
    """One figure of a new model beside what it may be."""

    measure: str  # the setting that limits it, or `parity`, `majority`
    value: float
    limit: float
    n_items: int
    passed: bool
    text: str  # for people


@dataclass(frozen=True)
class Material:
    """What a verdict is made from: directories of stages."""

    export: Path
    clean: Path
    scored: Path
    last: Path | None  # the export of the last accepted model, None before the first


def judge(gate: GateSettings, material: Material, folder: Path, *, model: str) -> None:
    """Write verdict.json: whether the model may score, every figure, and what it was compared with."""
    compared, checks = figures(gate, material, model)
    judged = [check for check in checks if check.measure == AGREEMENT or check.n_items >= gate.min_items]
    failed = [check.text for check in judged if not check.passed]
    by_hand = is_accepted(gate, model)
    content = {
        "model": model,
        "last_accepted_model": None if material.last is None else material.last.name,
        "compared": compared,
        "accepted": not failed or by_hand,
        "accepted_by_hand": bool(failed) and by_hand,
        "failed": failed,
        "checks": [vars(check) for check in judged],
        "too_few_items": [vars(check) for check in checks if check not in judged],
    }
    (folder / VERDICT).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def figures(gate: GateSettings, material: Material, model: str) -> tuple[str, list[Check]]:
    """Return in words what the model was compared with, and all checks; none of the model that was accepted last.

    The last of those that are passed counts most: parity, before whole paths.
    """
    if material.last is not None and material.last.name == model:
        return "it is the last accepted model itself", []
    new = load_model(verified(material.export, "model.h5"))
    taxonomy = Taxonomy.from_json(verified(material.clean, "taxonomy.json").read_text("utf-8"))
    evaluation = json.loads(verified(material.export, "evaluation.json").read_text("utf-8"))
    part, items = labelled(material.clean, taxonomy)
    names = [f"{name} of the {part} part" for name in (*taxonomy.levels, "path")]
    ours = right(new, items, taxonomy)
    compared, theirs = _last(material.last, items, taxonomy)
    scored = some_items(material.scored)
    own, last = list(general(gate, new, scored, evaluation)), agreement(evaluation, scored.num_rows)
    if theirs is None:
        return compared, [*own, *floors(ours, majority(evaluation, items, taxonomy), names), last]
    return compared, [*own, *drops(gate, ours, theirs, names), last]


def agreement(evaluation: dict[str, Any], n_items: int) -> Check:
    """Return the check of parity, which is asked of any number of items."""
    parity = evaluation["parity"]
    text = f"largest difference between NumPy's probabilities and the engine's {parity:.2g}, {PARITY:g} would pass"
    return Check(AGREEMENT, parity, PARITY, n_items, parity <= PARITY, text)


def require_agreement(export: Path) -> None:
    """Raise ModelError where a model was published that computes something else than the engine, and no gate looks."""
    check = agreement(json.loads((export / "evaluation.json").read_text("utf-8")), 0)
    if not check.passed:
        raise ModelError(f"model {export.name[:12]}: {check.text}; python -m tasks invalidate train, then run again")


def is_accepted(gate: GateSettings, model: str) -> bool:
    """Return whether the settings let this model through by hand."""
    return bool(gate.accept) and model.startswith(gate.accept)


def drops(gate: GateSettings, ours: Right, theirs: Right, names: list[str]) -> Iterator[Check]:
    """Yield a check for every level and for the path: how much lower is the accuracy than the last accepted model's?"""
    for column, name in enumerate(names):
        if not (n := int(ours.known[:, column].sum())):
            continue
        measure = "max_path_drop" if column == len(names) - 1 else "max_level_drop"
        before, now = theirs.accuracy(column), ours.accuracy(column)
        limit = getattr(gate, measure) + CHANCE * drop_error(ours, theirs, column)
        lowest = f"{before - limit:.3f} would pass, [gate] {measure} = {getattr(gate, measure):g}"
        text = f"{name} right {before:.3f} -> {now:.3f} ({n:,} items), {lowest}"
        yield Check(measure, round(before - now, 6), round(limit, 6), n, before - now <= limit, text)


def drop_error(ours: Right, theirs: Right, column: int) -> float:
    """Return the standard error of the difference of two accuracies on the same items.

    Of n items b are right with one model only and c with the other only: sqrt(b + c - (b - c)^2 / n) / n.
    Source: McNemar 1947; Agresti, Categorical Data Analysis, 10.1.

    >>> one, other = (Right(np.ones((4, 1), bool), np.array([right], bool).T) for right in ([1, 1, 0, 1], [1, 0, 1, 1]))
    >>> round(drop_error(one, other, 0), 4)
    0.3536
    """
    n = int(ours.known[:, column].sum())
    one, other = ours.right[:, column], theirs.right[:, column]
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    return float(np.sqrt(b + c - (b - c) ** 2 / n) / n)


def floors(ours: Right, always: Right, names: list[str]) -> Iterator[Check]:
    """Yield a check for every level and for the path: is it right more often than the most frequent class?"""
    for column, name in enumerate(names):
        if n := int(ours.known[:, column].sum()):
            now, floor = ours.accuracy(column), always.accuracy(column)
            text = f"{name} right {now:.3f}, always saying the most frequent class {floor:.3f} ({n:,} items)"
            yield Check("majority", round(now, 6), round(floor, 6), n, now > floor, text)


def majority(evaluation: dict[str, Any], items: pa.Table, taxonomy: Taxonomy) -> Right:
    """Return what always saying the most frequent class of each level of the training part gets right.

    For the path that is the class of the last level, which is a whole path.
    """
    labels = taxonomy.encode([items[level] for level in taxonomy.levels])
    known, whole = labels >= 0, (labels >= 0).all(axis=1)
    classes = [tuple(level["majority_class"] or ()) for level in evaluation["levels"]]
    always = [own.index(path) if path in own else -2 for own, path in zip(taxonomy.classes, classes, strict=True)]
    hit = known & (labels == np.array(always, np.int32))
    return Right(np.column_stack([known, whole]), np.column_stack([hit, whole & hit[:, -1]]))


def general(gate: GateSettings, model: Model, items: pa.Table, evaluation: dict[str, Any]) -> Iterator[Check]:
    """Yield the checks that need no other model: coverage, the largest class of the top level, calibration."""
    n = items.num_rows
    if n and len(model.transform.vocabulary):
        share = float(covered(model, items).mean())
        text = f"items with a tag that it knows {share:.1%} ({n:,} items), [gate] min_coverage = {gate.min_coverage:g}"
        yield Check("min_coverage", round(share, 6), gate.min_coverage, n, share >= gate.min_coverage, text)
    if n and model.taxonomy.n_classes[0] > 1:
        counts = np.bincount(predict(model, items)[:, 0])
        share, name = float(counts.max() / n), model.taxonomy.classes[0][int(counts.argmax())][-1]
        text = (
            f"items that are called '{name}' {share:.1%} ({n:,} items), [gate] max_top_share = {gate.max_top_share:g}"
        )
        yield Check("max_top_share", round(share, 6), gate.max_top_share, n, share <= gate.max_top_share, text)
    path = evaluation["path"]
    if path["calibration_error"] is not None:
        error, limit = path["calibration_error"], gate.max_calibration_error
        text = (
            f"calibration error of the path {error:.3f} ({path['n_items']:,} items), [gate] {CALIBRATION} = {limit:g}"
        )
        yield Check(CALIBRATION, round(error, 6), limit, path["n_items"], error <= limit, text)


def _last(folder: Path | None, items: pa.Table, taxonomy: Taxonomy) -> tuple[str, Right | None]:
    """Return in words what there is to compare with, and what the last accepted model gets right."""
    if folder is None:
        return "no model was accepted before", None
    name = f"the last accepted model {folder.name[:12]}"
    if not exists(folder):
        return f"{name} is there no more", None
    try:
        return name, right(load_model(verified(folder, "model.h5")), items, taxonomy)
    except (FeatureError, ModelError) as error:
        return f"{name} cannot be asked about the items of today: {error}", None
