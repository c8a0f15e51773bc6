"""Stage 3: a network learns from arrays: epochs, early stopping, divergence; `fit` is the library call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline import parameters
from pipeline.batches import Batch, Loader
from pipeline.checkpoint import Checkpoint, identity_of
from pipeline.config_learning import TrainingSettings
from pipeline.errors import TrainingError
from pipeline.examples import Source
from pipeline.graph import TrainingStep, compile_step
from pipeline.history import Epoch, evaluate, facts_of, should_stop
from pipeline.keeping import Kept, Weights
from pipeline.network import Network, NetworkConfig
from pipeline.objective import Goal, Loss, make_objective
from pipeline.ops import symbolic
from pipeline.optimizer import ChangeGradients
from pipeline.prefetch import Timed, prefetched
from pipeline.preparation import prepare
from pipeline.progress import SILENT, Progress
from pipeline.schedule import rate_of
from pipeline.taxonomy import Taxonomy

SAMPLE = 2048  # training items by which every epoch is measured beside the validation part


@dataclass(frozen=True)
class FitResult:
    """A trained network of arrays, and how it came about."""

    network: Network  # the weights of the best epoch, or the best mean over epochs
    history: tuple[Epoch, ...]
    best_epoch: int  # whose weights these are
    engine: str  # name and version
    compile_seconds: float
    seconds: float  # compile included
    n_training: int  # items that were trained on
    n_validation: int  # items that every epoch was measured by


def fit(
    network: Network,
    training: Source,
    validation: Source | None = None,
    settings: TrainingSettings | None = None,
    *,
    taxonomy: Taxonomy | None = None,
    loss: Loss | None = None,
    change_gradients: ChangeGradients | None = None,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> FitResult:
    """Return the network trained on the examples; the given one stays as it is.

    Training ends after `epochs`, or `patience` epochs after the best validation loss, whose weights are
    returned; without validation examples it runs all epochs and returns the last weights. With `keep` =
    averaged all this is said of the mean of the last epochs' weights (`pipeline.keeping`); with last it runs all
    epochs and returns the last weights whatever the validation loss. With `tagged_only`
    neither part has items without tags. The same seed, examples and engine give the same bytes: the linear
    algebra runs on one thread.

    With a `taxonomy` the accuracies of validation are those of the best legal paths, else of each level by itself.

    A `loss` of your own takes the place of that of the settings: it gets the log-probabilities of every level,
    (n, n_classes) each, and the labels, int32 (n, n_levels) with -1 for unknown, and returns a scalar; variables of
    the engine in training, arrays in validation (`pipeline.ops.of` has the operations of both). `change_gradients`
    gets the gradients by the names of the parameters before each update and returns those that it changes (of tables
    only the rows that a batch touches; see `pipeline.optimizer`).

    After every epoch the file `checkpoint` is replaced by one of the state then; where it is there already, of the same
    training, training goes on from it and ends with the same bytes. It belongs to these items and this loss alone.

    Raises TrainingError where there is nothing to train on, where an engine is missing, and in the step
    in which the loss or the gradient is no longer finite; FeatureError where examples do not fit the network.
    """
    settings = TrainingSettings() if settings is None else settings
    started = time.monotonic()
    network = parameters.cast(network, "float32")
    parts = prepare(network.config, training, validation, settings, progress)
    engine = symbolic.engine(settings.engine)
    if settings.compile_mode == "fast_run":
        progress.note(f"{engine.name} compiles: first compile takes about a minute, later ones seconds")
    objective = make_objective(settings, parts.class_counts, loss=loss)
    step = compile_step(engine, network, settings, objective=objective, change_gradients=change_gradients)
    compiled = time.monotonic()
    with threadpool_limits(1):
        at = None
        if checkpoint is not None:
            at = Checkpoint(checkpoint, identity_of(network, parts.training, parts.validation, settings, engine))
        kept = _run(step, objective, parts.training, parts.validation, settings, taxonomy, at, progress)
    return FitResult(
        network=parameters.fill(step.blank, kept.best),
        history=kept.history,
        best_epoch=kept.epoch,
        engine=f"{engine.name} {engine.version}",
        compile_seconds=compiled - started,
        seconds=time.monotonic() - started,
        n_training=len(parts.training),
        n_validation=0 if parts.validation is None else len(parts.validation),
    )


def _run(
    step: TrainingStep,
    objective: Goal,
    training: Source,
    validation: Source | None,
    settings: TrainingSettings,
    taxonomy: Taxonomy | None,
    checkpoint: Checkpoint | None,
    progress: Progress,
) -> Kept:
    """Return what is kept of all epochs."""
    loader = make_loader(training, step.blank.config, settings)
    # Their order is that of a hash: the first are like all.
    sample = training.read(0, min(SAMPLE, training.n_positions))
    kept = Kept(window=settings.averaged_epochs if settings.keep == "averaged" else 1, last=settings.keep == "last")
    if checkpoint is not None:
        kept = checkpoint.resume(step, kept, progress)
    while not finished(kept.history, settings):
        number = len(kept.history) + 1
        started = time.monotonic()
        ran = run_epoch(step, loader, number, settings, progress)
        kept = kept.with_weights(parameters.flatten(step.network()))
        check_finite(kept.recent[-1], number, len(loader))
        candidate = kept.candidate
        measured = parameters.fill(step.blank, candidate)
        held_out = None
        if validation is not None:
            held_out = evaluate(measured, validation, objective, taxonomy=taxonomy)
            if not math.isfinite(held_out.loss):
                raise diverged(number, len(loader), f"validation loss {held_out.loss}")
        learned = evaluate(measured, sample, objective, taxonomy=taxonomy) if len(sample) else None
        seconds = time.monotonic() - started
        epoch = Epoch(number, ran.loss, held_out, ran.items_per_second, seconds, ran.waiting, learned)
        kept = kept.with_epoch(epoch, candidate)
        if checkpoint is not None:
            checkpoint.save(step, kept)
        progress.update(number, settings.epochs, **facts_of(kept.history[-1]))
    return kept


def make_loader(training: Source, config: NetworkConfig, settings: TrainingSettings) -> Loader:
    """Return the loader of the training part."""
    return Loader(
        training,
        n_hidden=config.hidden,
        batch_size=settings.batch_size,
        seed=settings.seed,
        dropout=settings.dropout,
        tag_dropout=settings.tag_dropout,
        feature_dropout=settings.feature_dropout,
    )


def finished(history: Sequence[Epoch], settings: TrainingSettings) -> bool:
    """Return whether no epoch is to follow."""
    if not history or len(history) >= settings.epochs:
        return bool(history)
    return settings.keep != "last" and should_stop(history, patience=settings.patience)


class Ran(NamedTuple):
    """How an epoch of training went."""

    loss: float  # mean of its items
    items_per_second: float
    waiting: float  # share of the time in which the engine waited for a batch


def run_epoch(
    step: Callable[[Batch, float], tuple[float, float]],
    loader: Loader,
    number: int,
    settings: TrainingSettings,
    progress: Progress = SILENT,
) -> Ran:
    """Train on every batch of an epoch; return the mean loss of its items, and what it took.

    The first of several steps is left out of the times: PyTensor compiles in the first step of all.
    Raises TrainingError in the step whose loss or gradient is not finite.
    """
    total = 0.0
    started, not_timed = time.monotonic(), 0
    told = started
    with prefetched(loader.epoch(number), settings.prefetch) as ready:
        batches = Timed(ready)
        for place, batch in enumerate(batches, start=1):
            loss, norm = step(batch, rate_of(settings, (number - 1) * len(loader) + place - 1, len(loader)))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise diverged(number, place, f"loss {loss}, gradient norm {norm}")
            total += loss * len(batch.labels)
            if place == 1 and len(loader) > 1:
                started, not_timed, batches.seconds = time.monotonic(), len(batch.labels), 0.0
            if time.monotonic() - told > 1:
                told = time.monotonic()
                done = number - 1 + place / len(loader)
                progress.update(done, settings.epochs, epoch=number, step=f"{place:,}/{len(loader):,}", loss=loss)
    n_items, seconds = len(loader.examples), max(time.monotonic() - started, 1e-9)
    return Ran(total / n_items, (n_items - not_timed) / seconds, batches.seconds / seconds)


def check_finite(weights: Weights, epoch: int, step: int) -> None:
    """Raise TrainingError where a parameter holds a value that is not finite."""
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise diverged(epoch, step, f"parameter {name} is not finite")


def diverged(epoch: int, step: int, what: str) -> TrainingError:
    """Return the error of training that left the finite numbers."""
    return TrainingError(
        f"training diverged in epoch {epoch}, step {step}: {what}; lower [training] learning_rate, "
        "set clip_norm above 0, and look for infinite or huge values in the features"
    )
