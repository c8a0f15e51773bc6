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
    from pipeline.model import Model, load_model
    from pipeline.taxonomy import Taxonomy

_HOMES = {
    "Settings": "pipeline.config",
    "make_settings": "pipeline.config",
    "Model": "pipeline.model",
    "load_model": "pipeline.model",
    "Taxonomy": "pipeline.taxonomy",
}

__all__ = ["Model", "Settings", "Taxonomy", "load_model", "make_settings"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
