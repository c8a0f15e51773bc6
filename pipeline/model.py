"""The model file: everything that scores raw tags, in one file without pickles; verify, load, predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from pipeline import arrow, container, formats, frames, parameters
from pipeline.calibration import Calibration
from pipeline.config import Settings
from pipeline.config_catalog import CleanSettings
from pipeline.config_results import ScoringSettings
from pipeline.ensemble import Ensemble, members_of, together
from pipeline.errors import ModelError
from pipeline.features import FeatureTransform
from pipeline.hdf5 import read_array, read_group
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig
from pipeline.network_config import parents_of
from pipeline.tag_lists import TagLists
from pipeline.taxonomy import Taxonomy

if TYPE_CHECKING:
    from pipeline.passes import Folded

Floats = npt.NDArray[np.floating[Any]]
# The settings of [clean] that are rules for tags.
TAG_RULES = {"fix_mojibake", "unescape_html", "unescape_url", "unicode_nfkc", "lowercase", "strip_punctuation"}
TAG_RULES |= {"max_tag_length", "stop_tags", "min_tag_count", "min_tag_users", "drop_label_tags"}


@dataclass(frozen=True)
class Prediction:
    """What a model says about one item."""

    path: tuple[str, ...]  # labels from the top to where the path stops
    path_probability: float
    level_probabilities: Mapping[str, float]  # by level: that of the class on the best path, a stop included
    best_paths: tuple[tuple[str, ...], ...]  # most probable first
    best_path_probabilities: tuple[float, ...]
    n_tags: int  # distinct clean tags; 0: the probabilities are what the model expects of any item
    n_unseen_tags: int  # of these, how many the model has not learned

    @property
    def no_known_tags(self) -> bool:
        """Return whether no tag of the item has been learned."""
        return self.n_tags == self.n_unseen_tags


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model in memory: a pure function from items to scores."""

    network: FeedbackNetwork | Ensemble  # of NumPy arrays
    transform: FeatureTransform
    taxonomy: Taxonomy
    calibration: Calibration
    clean: CleanSettings
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tag_lists: TagLists = field(default_factory=TagLists)  # by which the training tags were cleaned
    catalog: Mapping[str, Any] = field(default_factory=dict)  # what the columns of the training items were called
    storage: str = "float32"  # of the parameters in the file, or float16
    sha256: str = ""  # of the model file; empty for a model that was never in one

    def __post_init__(self) -> None:
        config, transform = self.network.config, self.transform
        expected = (transform.n_vocabulary, transform.n_features, transform.n_dense, tuple(self.taxonomy.n_classes))
        found = (config.n_vocabulary, config.n_features, config.n_dense, config.n_classes)
        if found != expected:
            raise ModelError(
                f"the network is built for {found} (tags, features, dense columns, classes), features and "
                f"taxonomy give {expected}; export the model again"
            )
        if config.parent_mask and config.parents != parents_of(self.taxonomy.parents):
            raise ModelError("the network masks classes by other parents than the taxonomy's; export the model again")

    @property
    def fingerprint(self) -> str:
        """Return what the scores call the model: its stage's fingerprint, or the file's SHA-256 where it has none."""
        return str(self.provenance.get("fingerprint", self.sha256))

    @cached_property
    def label_names(self) -> pa.Array:
        """Return the names of all classes, each once, sorted; stops have none."""
        taxonomy = self.taxonomy
        names = {taxonomy.name(k, c) for k, size in enumerate(taxonomy.n_classes) for c in range(size)}
        return arrow.strings(sorted(name for name in names if name is not None))

    @cached_property
    def label_codes(self) -> tuple[npt.NDArray[np.int32], ...]:
        """Return for each level the place of each class in `label_names`, (n_classes,); -1 for a stop."""
        place = {name: code for code, name in enumerate(self.label_names.to_pylist())}
        return tuple(
            np.array([place.get(self.taxonomy.name(k, c), -1) for c in range(size)], dtype=np.int32)
            for k, size in enumerate(self.taxonomy.n_classes)
        )

    @cached_property
    def folded(self) -> Folded | None:
        """Return the networks made ready for many items; None where their parts do not allow it."""
        from pipeline.passes import fold

        return fold(self)

    @property
    def classes_(self) -> list[npt.NDArray[Any]]:
        """Return for each level the full path of every class, (n_classes,) tuples, in the order of `predict_proba`."""
        return [np.fromiter(level, dtype=object, count=len(level)) for level in self.taxonomy.classes]

    @overload
    def predict(self, data: Sequence[Sequence[str]], *, n_best: int = 3) -> list[Prediction]: ...

    @overload
    def predict(self, data: Any, *, n_best: int = 3) -> Any: ...

    def predict(self, data: Any, *, n_best: int = 3) -> Any:
        """Return a prediction for each row of raw tags, cleaned as the training items were; for a table a table.

        A batch or table of Arrow or a DataFrame of pandas, with a column `tags` and what else the model reads, comes
        back as the same kind of table, with the columns of the scores. A row without tags gets what the model expects
        of any item, and n_tags = 0. Raises ModelError for anything else, and for an n_best outside 1 to 100.
        """
        if not 1 <= n_best <= 100:
            raise ModelError(f"predict(n_best={n_best}): 1 to 100 is allowed")
        items = frames.read(self, data)
        scoring = ScoringSettings(n_best=n_best, batch_size=_pass_size(items.num_rows))
        scores = self.score_batch(items, clean=True, scoring=scoring)
        if frames.is_table(data):
            return frames.give(data, scores, levels=self.taxonomy.levels)
        return [_prediction(row, self.taxonomy.levels) for row in scores.to_pylist()]

    def inputs(self, data: Any) -> Inputs:
        """Return what the network reads of what `predict` takes, so that every layer of it is had of tags.

        `model.network["hidden"](model.inputs(rows))` is the hidden layer, (n, n_hidden). Raises ModelError as
        `predict` does.
        """
        from pipeline.outputs import fill_up

        items, _ = self._items(data)
        return fill_up(self.transform.transform(items), n_rows=items.num_rows)

    def predict_proba(self, data: Any) -> list[Floats]:
        """Return the calibrated probabilities of all classes, one (n, n_classes) float32 array a level.

        `data` is what `predict` takes; columns are in the order of `classes_`, and each level's rows sum to 1.
        """
        from pipeline.outputs import probabilities

        return probabilities(self, *self._items(data))

    def embed(self, data: Any, *, layer: str = "hidden") -> Floats:
        """Return the inner representation of each item, (n, width) float32: the output of a layer of `network.names`.

        `data` is what `predict` takes. Of an ensemble the members' stand side by side. Raises ModelError for a layer
        that the network does not have.
        """
        from pipeline.outputs import representations

        return representations(self, *self._items(data), layer=layer)

    def _items(self, data: Any) -> tuple[pa.RecordBatch, int]:
        """Return clean items, and how many rows a forward pass has."""
        from pipeline.scoring import as_trained

        items = as_trained(self, frames.read(self, data), clean=True)
        return items, _pass_size(items.num_rows)

    def score_batch(
        self, batch: pa.RecordBatch, *, clean: bool, scoring: ScoringSettings | None = None
    ) -> pa.RecordBatch:
        """Return the scores of a batch; see `pipeline.scoring.score_batch`."""
        from pipeline.scoring import score_batch

        return score_batch(self, batch, clean=clean, scoring=ScoringSettings() if scoring is None else scoring)

    def save(self, path: Path | str) -> str:
        """Write the model file and return its SHA-256; the same model gives the same bytes."""

        networks = members_of(self.network)

        def fill(root: h5py.Group) -> None:
            container.write_json(root, "network", self.network.config.to_json())
            container.write_json(root, "members", len(networks))
            container.write_json(root, "catalog", dict(self.catalog))
            container.write_json(root, "storage", self.storage)
            container.write_json(root, "taxonomy", self.taxonomy.to_json())
            container.write_json(root, "clean", self.clean.model_dump(mode="json"))
            container.write_json(root, "tag_lists", self.tag_lists.to_json())
            container.write_json(root, "calibration", self.calibration.to_json())
            container.write_json(root, "provenance", dict(self.provenance))
            self.transform.save(root.create_group("transform"))
            for name, member in zip(group_names(len(networks)), networks, strict=True):
                parameters.save(root.create_group(name), parameters.cast(member, self.storage))

        return container.write(Path(path), fill)


def load_model(path: Path | str) -> Model:
    """Return the model of a file. Raises ModelError for a file that is absent, damaged, foreign or too new.

    Sizes and shapes are compared with the configuration before any array is read.
    """
    with container.open_verified(Path(path)) as (root, sha256):
        taxonomy = Taxonomy.from_json(container.read_json(root, "taxonomy"))
        provenance = container.read_json(root, "provenance")
        if not isinstance(provenance, dict):
            raise ModelError("'provenance' is not a JSON object")
        return Model(
            network=_load_network(root),
            transform=FeatureTransform.load(read_group(root, "transform")),
            taxonomy=taxonomy,
            calibration=Calibration.from_json(container.read_json(root, "calibration"), n_levels=len(taxonomy.levels)),
            clean=_load_clean(root),
            tag_lists=TagLists.from_json(container.read_json(root, "tag_lists")),
            provenance=provenance,
            catalog=_load_catalog(root),
            storage=_load_storage(root),
            sha256=sha256,
        )


def load_rules(path: Path, settings: Settings) -> tuple[Settings, TagLists]:
    """Return the settings with the rules by which the tags of a model were cleaned, and the lists that go with them.

    What is no rule for tags stays: the files, the split, and the limits of what a run accepts.
    """
    with container.open_verified(path) as (root, _):
        rules = _load_clean(root).model_dump(include=TAG_RULES)
        lists = TagLists.from_json(container.read_json(root, "tag_lists"))
    return settings.model_copy(update={"clean": settings.clean.model_copy(update=rules)}), lists


def _load_network(root: h5py.Group) -> FeedbackNetwork | Ensemble:
    """Return the network or the ensemble whose configuration and parameters the file holds, in float32."""
    config = NetworkConfig.from_json(container.read_json(root, "network"))
    n_members = formats.read(root, "members")
    if type(n_members) is not int or not 1 <= n_members <= len(root):
        raise ModelError(f"'members' is {n_members!s:.20}, which is no number of networks that the file can hold")
    storage = _load_storage(root)
    return together([_load_member(read_group(root, name), config, storage) for name in group_names(n_members)])


def group_names(n_members: int) -> list[str]:
    """Return the names of the groups that hold the parameters of the members.

    >>> group_names(3)
    ['parameters', 'parameters_2', 'parameters_3']
    """
    return ["parameters", *(f"parameters_{number}" for number in range(2, n_members + 1))]


def _load_member(group: h5py.Group, config: NetworkConfig, storage: str) -> FeedbackNetwork:
    """Return one network, its parameters in float32 however they are stored."""
    if len(config.n_classes) > len(group):
        raise ModelError(f"'network' has {len(config.n_classes)} levels, more than there are parameters")
    blank = FeedbackNetwork.initialise(config, None)
    shapes = {name: value.shape for name, value in parameters.flatten(blank).items()}
    if foreign := sorted(shapes.keys() ^ set(group)):
        raise ModelError(f"parameter '{foreign[0]}' is missing, or not one of this network")
    arrays = {
        name: read_array(group, name, storage, shape).astype(np.float32, copy=False) for name, shape in shapes.items()
    }
    return FeedbackNetwork.load(config, arrays)


def _load_storage(root: h5py.Group) -> str:
    """Return the type in which the parameters are stored."""
    storage = formats.read(root, "storage")
    if storage not in ("float32", "float16"):
        raise ModelError(f"'storage' is {storage!s:.20}, not float32 or float16")
    return str(storage)


def _load_catalog(root: h5py.Group) -> Mapping[str, Any]:
    """Return the names of columns."""
    catalog = formats.read(root, "catalog")
    if not isinstance(catalog, dict):
        raise ModelError("'catalog' is not a JSON object")
    return catalog


def _load_clean(root: h5py.Group) -> CleanSettings:
    """Return the settings by which raw tags were cleaned."""
    try:
        return CleanSettings.model_validate(container.read_json(root, "clean"))
    except ValidationError as error:
        wrong = ".".join(map(str, error.errors()[0]["loc"]))
        raise ModelError(f"'clean' has settings that this version does not take, such as '{wrong}'") from error


def _pass_size(n_rows: int) -> int:
    """Return how many rows a forward pass has: a call for one row should not pay for two thousand."""
    return 64 if n_rows <= 256 else 2048


def _prediction(row: Mapping[str, Any], levels: Sequence[str]) -> Prediction:
    return Prediction(
        path=tuple(row["path"]),
        path_probability=row["path_probability"],
        level_probabilities={level: row[f"{level}_probability"] for level in levels},
        best_paths=tuple(map(tuple, row["best_paths"])),
        best_path_probabilities=tuple(row["best_path_probabilities"]),
        n_tags=row["n_tags"],
        n_unseen_tags=row["n_unseen_tags"],
    )
