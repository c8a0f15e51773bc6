"""Versions of the model file: what older ones lack, and what stands in its place.

1   one network, float32
2   `members` (how many networks), `catalog` (how the columns of the training items were called), `storage`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import container
from pipeline.config_catalog import CatalogSettings

PATHS = {"items", "tags", "labels", "taxonomy"}  # settings of [catalog] that name files, not columns
# What each older version is read as, where it says nothing.
LACKED: Mapping[int, Mapping[str, Any]] = {1: {"members": 1, "catalog": {}, "storage": "float32"}}


def read(root: Any, name: str) -> Any:
    """Return a JSON document of a model file of any version that can be read.

    Raises FeatureError where it is missing, though a file of that version has it, ModelError where it is not JSON.
    """
    if name not in root:
        lacked = LACKED.get(container.version_of(Path(root.file.filename)), {})
        if name in lacked:
            return lacked[name]
    return container.read_json(root, name)


def catalog_facts(catalog: CatalogSettings) -> dict[str, Any]:
    """Return how the columns of a catalog are called, without the paths of its files.

    >>> sorted(CatalogSettings().model_dump().keys() - catalog_facts(CatalogSettings()))
    ['items', 'labels', 'tags', 'taxonomy']
    """
    return catalog.model_dump(mode="json", exclude=PATHS)
