"""Tagladder: raw tags climb a ladder of labels; the library behind the Luigi tasks.

    >>> from pipeline import Settings
    >>> Settings().catalog.levels
    ('genre', 'subgenre', 'theme')

Names are loaded when they are first used, so that scoring imports neither Theano nor DuckDB.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Settings, make_settings
    from pipeline.config_catalog import SAMPLE
    from pipeline.config_learning import TrainingSettings
    from pipeline.examples import Examples
    from pipeline.fitting import fit
    from pipeline.frontend import examples_of, train_model
    from pipeline.model import Model, load_model
    from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig
    from pipeline.taxonomy import Taxonomy

_HOMES = {
    "SAMPLE": "pipeline.config_catalog",
    "Examples": "pipeline.examples",
    "FeedbackNetwork": "pipeline.network",
    "Inputs": "pipeline.network",
    "NetworkConfig": "pipeline.network",
    "TrainingSettings": "pipeline.config_learning",
    "fit": "pipeline.fitting",
    "examples_of": "pipeline.frontend",
    "train_model": "pipeline.frontend",
    "Settings": "pipeline.config",
    "make_settings": "pipeline.config",
    "Model": "pipeline.model",
    "load_model": "pipeline.model",
    "Taxonomy": "pipeline.taxonomy",
}

__all__ = [
    "SAMPLE",
    "Examples",
    "FeedbackNetwork",
    "Inputs",
    "Model",
    "NetworkConfig",
    "Settings",
    "Taxonomy",
    "TrainingSettings",
    "examples_of",
    "fit",
    "load_model",
    "make_settings",
    "train_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
