"""Stage 4: a trained network becomes one model file, if NumPy computes what the engine computed; and is evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import parameters, shards
from pipeline.calibration import Calibration, fit
from pipeline.config import Settings
from pipeline.ensemble import Ensemble, members_of, together
from pipeline.errors import ModelError
from pipeline.evaluation import evaluate, forward, member_figures
from pipeline.examples import Source, only_tagged
from pipeline.features import load_transform
from pipeline.folds import Fold
from pipeline.formats import catalog_facts
from pipeline.hdf5 import read_array, read_group
from pipeline.model import Model
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig
from pipeline.parts import Parts, open_parts
from pipeline.storage import as_stored, cost
from pipeline.tag_lists import TagLists
from pipeline.taxonomy import Taxonomy

Answering = FeedbackNetwork | Ensemble
PARITY = 1e-5  # largest difference of a probability between the engine and NumPy
ANY = 1.0  # which no difference of probabilities exceeds
CALIBRATION_ITEMS = 20_000  # enough for a temperature a level; the first by the hash of their ids


def export(
    settings: Settings,
    clean_folder: Path,
    features_folder: Path,
    train_folders: Sequence[Path],
    folder: Path,
    *,
    provenance: Mapping[str, Any],
    limit: float = PARITY,
) -> None:
    """Write model.h5 and evaluation.json from the published folders of stages 1 and 2, and of every trained member.

    The temperatures are fitted on the validation part, with cross_fit on the fold that each member held out; figures
    are those of the test part, of the validation part where no item is for the test, of none where neither has items
    (evaluation.json says which, as `part`).
    They are of the network as the file stores it; where that is less exact, `storage` in evaluation.json has the cost.
    Raises ModelError where NumPy's probabilities differ from the engine's by more than `limit`.
    """
    members = [load_network(train_folder) for train_folder in train_folders]
    differences = [
        checked_parity(network, train_folder / "probe.h5", limit)
        for network, train_folder in zip(members, train_folders, strict=True)
    ]
    exact = together(members)
    network = as_stored(exact, settings.export.storage)
    taxonomy = Taxonomy.from_json((clean_folder / "taxonomy.json").read_text("utf-8"))
    data = open_parts(features_folder)
    # A network that learned from tagged items only says next to nothing of others, and honest temperatures of that
    # would spoil the rest.
    unseen = unseen_of(network, data, cross_fit=settings.training.cross_fit)
    if settings.training.tagged_only:
        unseen = [(member, only_tagged(items)) for member, items in unseen]
    calibration = calibrate(unseen, taxonomy, common=settings.export.temperatures == "common")
    part = "test" if len(data.test) else "validation" if len(data.validation) else None
    held_out = {"test": data.test, "validation": data.validation, None: data.test}[part]
    figures = evaluate(network, held_out, taxonomy, calibration=calibration, class_counts=data.train.class_counts())
    model = Model(
        network=network,
        transform=load_transform(features_folder / "transform.h5"),
        taxonomy=taxonomy,
        calibration=calibration,
        clean=settings.clean,
        catalog=catalog_facts(settings.catalog),
        storage=settings.export.storage,
        provenance=provenance,
        tag_lists=TagLists.from_json(json.loads((clean_folder / "tag_lists.json").read_text("utf-8"))),
    )
    model.save(folder / "model.h5")
    evaluation = {"part": part, **figures, "temperatures": calibration.to_json(), "parity": max(differences)}
    if network is not exact:
        evaluation["storage"] = {"type": model.storage, **cost(exact, network, held_out, taxonomy, calibration)}
    if len(members) > 1:
        evaluation["members"] = [member_figures(member, held_out, taxonomy) for member in members]
    text = json.dumps(evaluation, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "evaluation.json").write_text(text + "\n", "utf-8")


def load_network(train_folder: Path) -> FeedbackNetwork:
    """Return the trained network of a published folder of stage 3, in NumPy arrays."""
    config = NetworkConfig.from_json(json.loads((train_folder / "network.json").read_text("utf-8")))
    return FeedbackNetwork.load(config, parameters.load(train_folder / "parameters.h5"))


def checked_parity(network: FeedbackNetwork, probe: Path, limit: float) -> float:
    """Return the parity of a member. Raises ModelError where it is more than the limit, or no number."""
    difference = parity(network, probe)
    if not difference <= limit:
        raise ModelError(
            f"{probe}: NumPy's probabilities differ from the engine's by {difference:.2g}, more than {limit:g}; "
            "train again, and report it if it stays: the engine computes something else"
        )
    return difference


def parity(network: FeedbackNetwork, probe: Path) -> float:
    """Return the largest difference between NumPy's probabilities and those that the engine left in a probe file."""
    config = network.config
    with h5py.File(probe, "r") as file:
        tag_index = read_array(file, "tag_index", np.int32, (None, None))
        n = len(tag_index)
        features = shards.read_sparse(read_group(file, "features"), shape=(n, config.n_features))
        dense = read_array(file, "dense", np.float32, (n, config.n_dense))
        expected = [
            read_array(file, f"log_probabilities_{level}", np.float32, (n, n_classes))
            for level, n_classes in enumerate(config.n_classes)
        ]
    found = network(Inputs(tag_index, features if config.n_features else None, dense if config.n_dense else None))
    pairs = zip(found, expected, strict=True)
    return float(max(np.abs(np.exp(ours) - np.exp(theirs)).max(initial=0) for ours, theirs in pairs))


def unseen_of(network: Answering, data: Parts, *, cross_fit: bool) -> list[tuple[Answering, Source]]:
    """Return who is to answer for which items: the network for the validation part, or each member for its own fold."""
    if not cross_fit:
        return [(network, data.validation)]
    members = members_of(network)
    return [
        (member, Fold(data.train, number, len(members), held_out=True))
        for number, member in enumerate(members, start=1)
    ]


def calibrate(unseen: Sequence[tuple[Answering, Source]], taxonomy: Taxonomy, *, common: bool = False) -> Calibration:
    """Return the temperatures by items that the networks beside them have not seen; 1 for every level without any."""
    n_items = CALIBRATION_ITEMS // len(unseen)
    chunks = [chunk for network, items in unseen for chunk in forward(network, items, n_items=n_items)]
    if not chunks:
        return Calibration.none(len(taxonomy.levels))
    logits = [np.concatenate(level) for level in zip(*(found for found, _ in chunks), strict=True)]
    return fit(logits, np.concatenate([labels for _, labels in chunks]), taxonomy, common=common)
