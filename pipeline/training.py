"""Stage 3, from folder to folder: the shards of stage 2 become trained parameters, their history and a probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from pipeline import batches, parameters, shards
from pipeline.config import Settings
from pipeline.config_learning import TrainingSettings
from pipeline.errors import TrainingError
from pipeline.examples import CHUNK, Examples, Source, chunks
from pipeline.features import load_transform
from pipeline.fitting import FitResult, fit
from pipeline.folds import divided
from pipeline.graph import log_probabilities
from pipeline.hdf5 import write_array
from pipeline.hdf5_files import created
from pipeline.history import write_history
from pipeline.network import FeedbackNetwork, Network, NetworkConfig, expert_shares
from pipeline.objective import Loss
from pipeline.ops import symbolic
from pipeline.optimizer import ChangeGradients
from pipeline.parts import Part, open_parts
from pipeline.progress import Progress
from pipeline.taxonomy import Taxonomy
from pipeline.warm_start import Earlier, warm_start

__all__ = ["FitResult", "fit", "train", "write_probe"]

CHECKPOINT = "checkpoint.h5"
N_PROBE = 64  # items whose probabilities an export is checked against


def train(
    settings: Settings,
    features_folder: Path,
    folder: Path,
    *,
    taxonomy: Path | None = None,
    start: Earlier | None = None,
    member: int = 1,
    loss: Loss | None = None,
    change_gradients: ChangeGradients | None = None,
    work: Path | None = None,
    progress: Progress,
) -> None:
    """Train on the shards of stage 2, and write what stage 3 leaves behind.

    taxonomy is taxonomy.json of stage 1, for the accuracies of legal paths; a network with parent_mask needs it.
    With cross_fit, `member` of the settings' members holds out its fold of the training part.
    Training begins with the weights of the model `start`, of an ensemble with those of this member; the taxonomy is
    needed then. parameters.h5 (by dotted name), network.json, history.csv, probe.h5 (inputs of a few items and the
    log-probabilities that the engine gives them, log_probabilities_0 for the top level) and training.json.
    The checkpoint of an earlier attempt in the directory `work` is gone on from.
    """
    data = open_parts(features_folder)
    ladder = None if taxonomy is None else Taxonomy.from_json(taxonomy.read_text("utf-8"))
    config = NetworkConfig.of(settings.network, data.widths, () if ladder is None else ladder.parents)
    network = FeedbackNetwork.initialise(config, np.random.default_rng(settings.training.seed))
    if start is not None:
        if ladder is None:
            raise TrainingError("a warm start matches classes by their paths and needs the taxonomy: give its file")
        transform = load_transform(features_folder / "transform.h5")
        network = warm_start(network, start, transform=transform, taxonomy=ladder, member=member, progress=progress)
    training, validation = held(data.train), held(data.validation)
    if settings.training.cross_fit:
        training, validation = divided(training, validation, member=member, members=settings.training.members)
    checkpoint = None if work is None else work / CHECKPOINT
    result = fit(
        network,
        training,
        validation,
        settings.training,
        taxonomy=ladder,
        loss=loss,
        change_gradients=change_gradients,
        checkpoint=checkpoint,
        progress=progress,
    )
    parameters.save(folder / "parameters.h5", result.network)
    _write_json(folder / "network.json", config.to_json())
    write_history(folder / "history.csv", result.history, settings.catalog.levels)
    write_probe(folder / "probe.h5", result.network, training.read(0, N_PROBE), settings.training)
    facts = {
        "engine": result.engine,
        "best_epoch": result.best_epoch,
        "n_epochs": len(result.history),
        "n_parameters": parameters.count(result.network),
        "n_training_items": result.n_training,
        "n_validation_items": result.n_validation,
        "compile_seconds": round(result.compile_seconds, 3),
        "seconds": round(result.seconds, 3),
    }
    if config.experts:
        facts["expert_shares"] = shares_of(result.network, training)
    _write_json(folder / "training.json", facts)


def write_probe(path: Path, network: Network, examples: Examples, settings: TrainingSettings) -> None:
    """Write inputs and the log-probabilities that the engine gives them, for export to compare with NumPy's."""
    engine = symbolic.engine(settings.engine)
    # Mode fast_compile: the graph is the engine's all the same, and a full compile would take a quarter of a minute.
    expected = log_probabilities(engine, network, examples.inputs, mode="fast_compile")
    n_items = len(examples)
    features = sparse.csc_matrix((n_items, 0), dtype=np.float32)
    dense = np.zeros((n_items, 0), np.float32)
    with created(path) as file:
        write_array(file, "tag_index", examples.tag_index)
        shards.write_sparse(
            file.create_group("features"), features if examples.features is None else examples.features.tocsc()
        )
        write_array(file, "dense", dense if examples.dense is None else examples.dense)
        for level, values in enumerate(expected):
            write_array(file, f"log_probabilities_{level}", values)


def shares_of(network: Network, training: Source) -> list[float]:
    """Return for each expert the share of the training items on which it has a say; they sum to top_k."""
    total = np.zeros(network.config.experts)
    for part in chunks(training, CHUNK):
        total += expert_shares(network, part.inputs) * len(part)
    return [round(float(share), 6) for share in total / len(training)]


def held(part: Part) -> Source:
    """Return the part in memory where it is no more than a window of the loader, else as it is."""
    return part.read(0, len(part)) if len(part) <= batches.WINDOW else part


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
