"""Stage 3: where training stands after an epoch, in one file, from which it goes on to the same bytes.

    training           JSON: identity, history, how many of `recent`
    optimizer/<name>   the optimizer's state
    recent/<n>/<name>  weights at the ends of the last epochs; the last of them are those that move on
    best/<name>        weights of the best epoch so far, where they are not the last of `recent`

There is no random state to store: order and dropout of an epoch are drawn from the seed and its number alone
(`pipeline.batches`), so the position is the number of epochs. The file stands in the verified container of a model
file and replaces the one before by one rename: it is whole, or its checksum says that it is not. The one before stays
beside it, an epoch behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import container, files, parameters
from pipeline.config_learning import TrainingSettings
from pipeline.digests import fingerprint
from pipeline.errors import ModelError
from pipeline.examples import Source
from pipeline.graph import TrainingStep
from pipeline.hdf5 import read_array, read_group
from pipeline.history import Epoch, Evaluation
from pipeline.keeping import Kept, Weights
from pipeline.network import Network
from pipeline.ops.symbolic import Engine, Variable
from pipeline.progress import Progress

# Settings that bear on nothing here: the weights that training started from stand in the identity themselves.
WITHOUT_EFFECT = {"prefetch", "members", "refresh", "warm_start"}


State = tuple[Kept, dict[str, np.ndarray[Any, Any]]]  # what is kept, and the optimizer's state


@dataclass(frozen=True)
class Checkpoint:
    """The file of a training, and what that training is made from."""

    path: Path
    identity: str

    @property
    def before(self) -> Path:
        """Return the file that the newest one has replaced."""
        return self.path.with_name(f"before-{self.path.name}")

    def save(self, step: TrainingStep, kept: Kept) -> None:
        """Replace the file by one of the state now, and keep the one until now.

        Raises ArtifactError where the file system refuses.
        """

        def write(temporary: Path) -> None:
            container.write(temporary, lambda root: self._fill(root, step, kept))

        files.write_file(self.path, write, work=self.path.parent, before=self.before)

    def resume(self, step: TrainingStep, fresh: Kept, progress: Progress) -> Kept:
        """Bring a step to where the file left it, and return what is kept; a file that does not serve changes nothing.

        Then the one before it is tried, and `fresh` is returned at last. A note says why a file is not used: damaged,
        or of other settings, data or versions.
        """
        found = None
        for path in (self.path, self.before):
            if found is None and path.exists():
                found = self._found(path, step, fresh, progress)
        if found is None:
            return fresh
        kept, state = found
        step.restore(kept.recent[-1], state)
        return kept

    def _found(self, path: Path, step: TrainingStep, fresh: Kept, progress: Progress) -> State | None:
        """Return what stands in one of the two files, None where it does not serve."""
        what = "is damaged"
        try:
            with container.open_verified(path) as (root, _):
                facts = container.read_json(root, "training")
                if facts["identity"] == self.identity:
                    found = _read(root, facts, step, fresh)
                    progress.note(f"goes on after epoch {len(found[0].history)}, from {path}")
                    return found
                what = "belongs to other settings, items or versions"
        except ModelError:
            pass
        rest = "" if path == self.path and self.before.exists() else ": training starts from its first epoch"
        progress.note(f"{path} {what} and is not used{rest}")
        return None

    def _fill(self, root: h5py.Group, step: TrainingStep, kept: Kept) -> None:
        history = [asdict(epoch) for epoch in kept.history]
        facts = {"identity": self.identity, "history": history, "n_recent": len(kept.recent)}
        facts["best_is_last"] = kept.best is kept.recent[-1]
        container.write_json(root, "training", facts)
        _write(root.create_group("optimizer"), _values(step.state))
        if not facts["best_is_last"]:
            _write(root.create_group("best"), kept.best)
        recent = root.create_group("recent")
        for place, weights in enumerate(kept.recent):
            _write(recent.create_group(str(place)), weights)


def identity_of(
    network: Network, training: Source, validation: Source | None, settings: TrainingSettings, engine: Engine
) -> str:
    """Return the fingerprint of what a training is made from: first weights, settings, sizes of the parts, versions.

    The items themselves are not read for it: a file of checkpoints belongs to one set of items.
    """
    sha256 = hashlib.sha256()
    for value in parameters.flatten(network).values():
        sha256.update(np.ascontiguousarray(value).data)
    return fingerprint(
        {
            "weights": sha256.hexdigest(),
            "network": network.config.to_json(),
            "settings": settings.model_dump(mode="json", exclude=WITHOUT_EFFECT),
            "items": [len(training), 0 if validation is None else len(validation)],
            "versions": [engine.name, engine.version, np.__version__],
        }
    )


def _read(root: h5py.Group, facts: Mapping[str, Any], step: TrainingStep, fresh: Kept) -> State:
    """Return what is kept and the optimizer's state. Raises ModelError where they do not fit the step."""
    group = read_group(root, "recent")
    recent = tuple(_arrays(group, str(place), step.shared) for place in range(facts["n_recent"]))
    best = recent[-1] if facts["best_is_last"] else _arrays(root, "best", step.shared)
    history = tuple(_epoch(row) for row in facts["history"])
    return replace(fresh, history=history, recent=recent, best=best), _arrays(root, "optimizer", step.state)


def _epoch(row: Mapping[str, Any]) -> Epoch:
    return Epoch(**{**row, "validation": _evaluation(row["validation"]), "training": _evaluation(row["training"])})


def _evaluation(found: Mapping[str, Any] | None) -> Evaluation | None:
    if found is None:
        return None
    return Evaluation(**{**found, "accuracy": tuple(found["accuracy"]), "losses": tuple(found["losses"])})


def _values(shared: Mapping[str, Variable]) -> Weights:
    return {name: variable.get_value(borrow=True) for name, variable in shared.items()}


def _write(group: h5py.Group, arrays: Weights) -> None:
    for name, value in arrays.items():
        group.create_dataset(name, data=value, track_times=False)


def _arrays(root: h5py.Group, name: str, shared: Mapping[str, Variable]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a group, one for each shared variable and of its type and shape."""
    group = read_group(root, name)
    if foreign := sorted(set(group) ^ set(shared)):
        raise ModelError(f"'{name}/{foreign[0]}' is missing, or not of this training")
    return {key: read_array(group, key, value.dtype, value.shape) for key, value in _values(shared).items()}
