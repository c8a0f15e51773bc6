"""Stage 3: the items of a training, read through once and checked before anything is compiled."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.config_learning import TrainingSettings
from pipeline.errors import TrainingError
from pipeline.examples import Array, Source, Tagged, survey
from pipeline.network import NetworkConfig
from pipeline.progress import Progress


class Prepared(NamedTuple):
    """What training reads."""

    training: Source
    validation: Source | None  # None where there are no items
    class_counts: tuple[Array, ...]  # a level: training items of each class, int64 (n_classes,)


def prepare(
    config: NetworkConfig,
    training: Source,
    validation: Source | None,
    settings: TrainingSettings,
    progress: Progress,
) -> Prepared:
    """Return the items that the settings want of both parts.

    Raises TrainingError where there is nothing to train on or the settings do not fit the network, FeatureError where
    items do not.
    """
    there = survey(training, config, tagged_only=settings.tagged_only)
    n_held_out = 0
    if validation is not None:
        n_held_out = survey(validation, config, tagged_only=settings.tagged_only).n_items
    if settings.tagged_only:
        training = Tagged(training, there.n_items)
        validation = None if validation is None else Tagged(validation, n_held_out)
    _check(config, settings, there.n_items)
    if not n_held_out:
        progress.note(f"no validation items: training runs all {settings.epochs} epochs and keeps the last weights")
    return Prepared(training, validation if n_held_out else None, there.class_counts)


def _check(config: NetworkConfig, settings: TrainingSettings, n_items: int) -> None:
    """Raise TrainingError where training could only go wrong."""
    if not n_items:
        raise TrainingError(
            "there is no labelled item to train on; label some items, or lower [clean] validation_share"
            + (", or set [training] tagged_only = false" if settings.tagged_only else "")
        )
    n_levels, n_weights = len(config.n_classes), len(settings.level_weights)
    if n_weights not in (0, n_levels):
        raise TrainingError(f"[training] level_weights has {n_weights} weights for {n_levels} levels")
    if config.norm == "batch" and min(settings.batch_size, n_items) == 1:
        raise TrainingError("[network] norm = batch: a batch of one item has no variance, and nothing would be learned")
