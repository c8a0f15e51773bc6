"""Stage 3: a network begins with the weights of an earlier model, whose tags, features and classes may be others.

Rows and columns are matched by what they stand for: tags and features by name, classes by their full path. What both
have keeps its weights to the bit, what is new keeps the first weights that were drawn for it, and what is gone is
left behind. The optimizer starts afresh.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from pipeline import parameters
from pipeline.ensemble import Ensemble, members_of
from pipeline.errors import TrainingError
from pipeline.features import FeatureTransform
from pipeline.network import FeedbackNetwork, Network, NetworkConfig
from pipeline.ops import Array
from pipeline.progress import SILENT, Progress
from pipeline.taxonomy import Taxonomy

AnyNetwork = TypeVar("AnyNetwork", bound=Network)
Names = Sequence[Hashable]


class Earlier(Protocol):
    """What is read of an earlier model (`pipeline.model.Model`)."""

    @property
    def network(self) -> FeedbackNetwork | Ensemble:
        """Its network of arrays."""

    @property
    def transform(self) -> FeatureTransform:
        """How its features were made."""

    @property
    def taxonomy(self) -> Taxonomy:
        """Its classes."""

    @property
    def fingerprint(self) -> str:
        """What it is called."""


@dataclass(frozen=True)
class Meaning:
    """What the rows and columns of a network's parameters stand for."""

    tags: Names  # of each row of a tag table; the first is padding
    features: Names
    dense: Names
    classes: tuple[Names, ...]  # a level: full paths

    @classmethod
    def of(cls, transform: FeatureTransform, taxonomy: Taxonomy) -> Meaning:
        """Return what features and taxonomy say."""
        return cls(
            tags=(None, *transform.vocabulary.terms.to_pylist()),
            features=feature_identities(transform),
            dense=transform.dense_names(),
            classes=taxonomy.classes,
        )

    def axes(self, name: str, network: Network) -> tuple[Names | None, ...] | None:
        """Return what each axis of a parameter stands for, None for an axis of units; None: all axes are units."""
        first, _, rest = name.partition(".")
        level, _, kind = rest.partition(".")
        experts = range(max(1, network.config.experts if network.config.experts_at == "outputs" else 0))
        if name == "wide.weight":
            return self.features, [(level, path) for level, paths in enumerate(self.classes) for path in paths]
        if first == "heads":
            classes = [(expert, path) for expert in experts for path in self.classes[int(level)]]
            return (None, classes) if kind == "weight" else (classes,)
        if first == "labels":
            return self.classes[int(level)], None
        if name == "dense.weight":
            return self.dense, None
        table = network.tables.get(name)
        return None if table is None else ({"rows": self.tags, "columns": self.features}[table], None)


def warm_start(
    network: AnyNetwork,
    model: Earlier,
    *,
    transform: FeatureTransform,
    taxonomy: Taxonomy,
    member: int = 1,
    progress: Progress = SILENT,
) -> AnyNetwork:
    """Return the network with the weights of an earlier model wherever they mean the same.

    `transform` and `taxonomy` are those that the network is built for. Of an ensemble the member of this number is
    taken, from the first again where there are fewer. A note says how many weights were taken over, and which
    parameters were not, as the earlier network has none of that name and shape.

    Raises TrainingError where the hidden layers differ in size: then nothing fits.
    """
    earlier = members_of(model.network)
    before = earlier[(member - 1) % len(earlier)]
    _check_sizes(network.config, before.config)
    now, then = Meaning.of(transform, taxonomy), Meaning.of(model.transform, model.taxonomy)
    old = parameters.flatten(before)
    weights, n_taken, fresh = {}, 0, []
    for name, first in parameters.flatten(network).items():
        weights[name], n = first, 0
        if name in old:  # A level more has a head that the earlier taxonomy knows nothing of.
            weights[name], n = moved(first, old[name], now.axes(name, network), then.axes(name, before))
        n_taken += n
        if not n:
            fresh.append(name)
    told = f", but {', '.join(fresh)} {'starts' if len(fresh) == 1 else 'start'} afresh" if fresh else ""
    progress.note(f"starts from {n_taken:,} of {parameters.count(network):,} weights of {model.fingerprint[:12]}{told}")
    if gone := gone_classes(model.taxonomy, taxonomy):
        progress.note(f"classes that the earlier model knew and this one does not: {', '.join(gone)}")
    return parameters.replace(network, weights)


def gone_classes(before: Taxonomy, now: Taxonomy) -> list[str]:
    """Return the classes of an earlier taxonomy that the new one lacks, as full paths, those of the top level first."""
    levels = zip(before.classes, now.classes, strict=False)
    return [" > ".join(path) for then, new in levels for path in then if path not in new]


def moved(
    first: Array, old: Array, axes: tuple[Names | None, ...] | None, old_axes: tuple[Names | None, ...] | None
) -> tuple[Array, int]:
    """Return `first` with the values of `old` where both stand for the same, and how many values these are.

    >>> moved(np.zeros((3, 1)), np.array([[5.0], [6.0]]), (("a", "b", "c"), None), (("c", "a"), None))
    (array([[6.],
           [0.],
           [5.]]), 2)
    """
    axes = (None,) * first.ndim if axes is None else axes
    old_axes = (None,) * old.ndim if old_axes is None else old_axes
    if first.ndim != old.ndim:
        return first, 0
    places = []
    for size, old_size, names, old_names in zip(first.shape, old.shape, axes, old_axes, strict=True):
        if names is None or old_names is None:
            if names is not old_names or size != old_size:
                return first, 0
            places.append((np.arange(size), np.arange(size)))
        else:
            places.append(shared(names, old_names))
    result = first.copy()
    result[np.ix_(*(new for new, _ in places))] = old[np.ix_(*(there for _, there in places))]
    return result, int(np.prod([len(new) for new, _ in places]))


def shared(names: Names, old_names: Names) -> tuple[Array, Array]:
    """Return the places of the names that both have: among the first, and among the second.

    >>> shared(("zombies", "war", "space"), ("space", "zombies"))
    (array([0, 2]), array([1, 0]))
    """
    place_of = {name: place for place, name in enumerate(old_names)}
    pairs = [(place, place_of[name]) for place, name in enumerate(names) if name in place_of]
    new, old = np.array(pairs, np.int64).reshape(-1, 2).T
    return new, old


def feature_identities(transform: FeatureTransform) -> list[str]:
    """Return what each sparse column stands for: a term of its block, or a bucket of a hash of this width and length.

    Not `feature_names`: what a bucket is called there changes with the vocabulary, and takes long to find.
    """
    names: list[str] = []
    settings = transform.settings
    for block in transform.blocks:
        if block.vocabulary is not None:
            names += [block.source.name(term) for term in block.vocabulary.terms.to_pylist()]
            continue
        hashing = f"{settings.hash_width}/{settings.chars_min}-{settings.chars_max}"
        names += [block.source.name(f"#{bucket}/{hashing}") for bucket in range(block.n_columns)]
    return names


def _check_sizes(now: NetworkConfig, before: NetworkConfig) -> None:
    if now.hidden != before.hidden:
        raise TrainingError(
            f"[training] warm_start: the earlier model has {before.hidden} hidden units, the network {now.hidden}; "
            f"set [network] hidden = {before.hidden}, or leave warm_start empty"
        )
