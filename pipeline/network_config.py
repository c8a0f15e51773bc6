"""The sizes and choices that make a network: what a model file says of it, and refuses when it is impossible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from pipeline.config_learning import NetworkSettings
from pipeline.errors import ModelError

Parents = tuple[tuple[int, ...], ...]  # for each level below the top the class above of each of its classes
LARGEST = 2**31 - 1  # indexes are int32
CHOICES = {"kind": ("feedback", "single_shot"), "norm": ("layer", "batch", "none"), "experts_at": ("hidden", "outputs")}
SWITCHES = ("wide", "label_feedback", "parent_mask")


class Widths(Protocol):
    """What the features and the taxonomy of a catalog fix."""

    @property
    def n_vocabulary(self) -> int:
        """Ids of tags, the padding row included."""

    @property
    def n_features(self) -> int:
        """Columns of the sparse features."""

    @property
    def n_dense(self) -> int:
        """Dense columns."""

    @property
    def n_classes(self) -> tuple[int, ...]:
        """Classes of each level."""


def parents_of(parents: Sequence[Any]) -> Parents:
    """Return `Taxonomy.parents` as a configuration holds them: without the top level's, which are none.

    >>> parents_of([(), (0, 1, 1)])
    ((0, 1, 1),)
    """
    return tuple(tuple(int(parent) for parent in level) for level in parents[1:])


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes that make a network, and which of its parts it has (see `NetworkSettings`)."""

    n_vocabulary: int  # ids of tags, the padding row included
    n_features: int  # columns of the sparse features; 0: none
    n_dense: int  # dense columns; 0: none
    hidden: int
    n_classes: tuple[int, ...]  # classes of each level, top first
    kind: str = "feedback"  # or single_shot
    norm: str = "layer"  # of the hidden layer: layer, batch or none
    wide: bool = False
    label_feedback: bool = False
    parent_mask: bool = False
    experts: int = 0  # 0: none
    top_k: int = 2
    experts_at: str = "hidden"  # or outputs
    parents: Parents = ()  # needed by parent_mask only; empty without

    def __post_init__(self) -> None:
        self._check_types()
        sizes = (self.n_vocabulary, self.hidden, *self.n_classes)
        if not self.n_classes or min(sizes) < 1 or min(self.n_features, self.n_dense) < 0:
            raise ModelError(f"{self}: a network needs a vocabulary, a hidden layer and a class at every level")
        if max(*sizes, self.n_features, self.n_dense) > LARGEST or self.hidden > 65_536 or self.experts > 1024:
            raise ModelError(f"{self}: larger than int32 indexes, 65,536 hidden units or 1,024 experts")
        if self.experts and not (1 < self.experts >= self.top_k >= 1):
            raise ModelError(
                f"top_k = {self.top_k} of {self.experts} experts: top_k must be 1 to the number of experts"
            )
        if self.wide and not self.n_features:
            raise ModelError("the wide path reads sparse features, and there are none; set [features] blocks")
        if self.label_feedback and self.kind == "single_shot":
            raise ModelError("label_feedback feeds the next step, and a single_shot network has none")
        self._check_parents()

    def _check_types(self) -> None:
        """Raise ModelError where a field of a file is not of its type: True is no number, 8.5 no size."""
        numbers = (self.n_vocabulary, self.n_features, self.n_dense, self.hidden, self.experts, self.top_k)
        sequences = isinstance(self.n_classes, Sequence) and isinstance(self.parents, Sequence)
        if not sequences or any(type(number) is not int for number in (*numbers, *self.n_classes)):
            raise ModelError(f"{self}: sizes of a network are whole numbers")
        wrong = [name for name, allowed in CHOICES.items() if getattr(self, name) not in allowed]
        wrong += [name for name in SWITCHES if type(getattr(self, name)) is not bool]
        if wrong:
            raise ModelError(f"{wrong[0]} = {getattr(self, wrong[0])!r} is not what a network can be built with")

    def _check_parents(self) -> None:
        """Raise ModelError where parent_mask is on and a class has no parent, or one that the level above has not."""
        if not self.parent_mask:
            return
        lower = list(zip(self.n_classes, self.n_classes[1:], self.parents, strict=False))
        fits = len(self.parents) == len(self.n_classes) - 1 and all(
            isinstance(parents, Sequence)
            and len(parents) == n_classes
            and all(type(parent) is int and 0 <= parent < above for parent in parents)
            for above, n_classes, parents in lower
        )
        if not fits:
            raise ModelError("parent_mask needs for each level below the top the parent of each of its classes")

    @classmethod
    def of(cls, settings: NetworkSettings, widths: Widths, parents: Sequence[Any] = ()) -> NetworkConfig:
        """Return the configuration of these settings for the features and classes of a catalog.

        parents are those of the taxonomy (`Taxonomy.parents`, one sequence a level, the top level's empty);
        they are kept where parent_mask is on. Raises ModelError where the parts do not fit the features.
        """
        return cls(
            n_vocabulary=widths.n_vocabulary,
            n_features=widths.n_features,
            n_dense=widths.n_dense,
            n_classes=tuple(widths.n_classes),
            parents=parents_of(parents) if settings.parent_mask else (),
            **settings.model_dump(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as JSON can hold it."""
        return {**asdict(self), "n_classes": list(self.n_classes), "parents": [list(level) for level in self.parents]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NetworkConfig:
        """Return the configuration that `to_json` gave. Raises ModelError for anything else.

        >>> config = NetworkConfig(n_vocabulary=5, n_features=0, n_dense=0, hidden=2, n_classes=(2, 3))
        >>> NetworkConfig.from_json(config.to_json()) == config
        True
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or not {"n_vocabulary", "hidden", "n_classes"} <= data.keys() <= names:
            raise ModelError(f"a network has the fields {', '.join(sorted(names))}; this file has others")
        try:
            parents = tuple(map(tuple, data.get("parents", ())))
            return cls(**{**data, "n_classes": tuple(data["n_classes"]), "parents": parents})
        except TypeError as error:
            raise ModelError(f"not the configuration of a network: {error}") from None
