"""Settings of [export], [scoring] and [storage]: what results are like, and where they lie."""

from __future__ import annotations

from typing import Literal
from unicodedata import category

from pydantic import Field, field_validator, model_validator

from pipeline.config_types import ENGINE, Engine, FilePath, Names, Section, Shares
from pipeline.urls import is_url


class ExportSettings(Section):
    """What the model file is like."""

    storage: Literal["float32", "float16"] = Field(
        "float32", description="float16: half the bytes of the parameters; evaluation.json tells what it costs"
    )
    temperatures: Literal["levels", "common"] = Field(
        "levels",
        description="levels: one for each level, fitted together; common: the same for all, which leaves the best path "
        "as it is; for few items",
    )


class ScoringSettings(Section):
    """Which catalog is scored, and how probabilities become paths."""

    items: FilePath = Field("", description="another catalog to score; empty: the [catalog] items")
    tags: FilePath = Field("", description="its tags in the long form")
    labels: FilePath = Field("", description="its labels, if any are known; they are given beside the predicted ones")
    decoding: Literal["legal", "raw"] = Field(
        "legal", description="legal: best path of the taxonomy; raw: best label of each level"
    )
    n_best: int = Field(3, ge=1, le=100, description="best paths given for an item")
    thresholds: Shares = Field(
        (),
        description="a less certain label is left empty, and so are those below: a value, or one a level; empty: none",
    )
    embeddings: Names = Field(
        (), description="layers of the network whose output stands beside the scores, such as hidden, state_1"
    )
    batch_size: int = Field(
        2048, ge=1, le=1_000_000, description="items of a forward pass; a part of the identity, as it moves last bits"
    )
    part_items: int = Field(1_000_000, ge=1, description="items in a Parquet part")
    workers: int = Field(
        0, ge=0, le=1024, description="processes that score; 0: one for each physical core, shared by Luigi's workers"
    )
    engine: Engine = Field("local", description=f"who scores: {ENGINE}")

    @model_validator(mode="after")
    def _items_first(self) -> ScoringSettings:
        for name in ("tags", "labels"):
            if getattr(self, name) and not self.items:
                raise ValueError(f"{name}: {getattr(self, name)} is given without items, which it belongs to")
        if len(set(self.embeddings)) != len(self.embeddings):
            raise ValueError(f"embeddings: {', '.join(self.embeddings)} names a layer twice")
        return self


class StorageSettings(Section):
    """Where results lie."""

    root: FilePath = Field(
        "artifacts",
        min_length=1,
        description="directory of every stage's results, or a URL in an object store (s3://, gs://, hdfs://)",
    )
    local: FilePath = Field(
        "",
        description="where root is a URL: the directory of its working copy; empty: below the user's cache directory",
    )
    keep_runs: int = Field(
        30, ge=1, description="published runs that are kept: of the newest dates, and as many of those published last"
    )
    tries: int = Field(
        3, ge=1, description="tries of what may pass by itself, such as a full disk; what cannot is tried once"
    )
    retry_delay: float = Field(60, ge=0, description="seconds until the next try")
    unfinished_hours: float = Field(
        48,
        gt=0,
        description="where root is a URL: what a run has left unfinished is removed after so long; no run takes longer",
    )

    @field_validator("root", "local")
    @classmethod
    def _can_be_named(cls, path: str) -> str:
        """Refuse what names no directory, and what DuckDB, the stores or Luigi read otherwise than the kernel."""
        if path and not path.strip():
            raise ValueError("is blank; name a directory")
        if any(category(character) == "Cc" for character in path):
            raise ValueError("has a line break or another control character in it; name another directory")
        for text, what in (("?", "pattern"), ("*", "pattern"), ("[", "pattern"), ("${", "variable")):
            if text in path and not (text == "[" and is_url(path)):  # There it is an address: hdfs://[::1]:8020/x
                raise ValueError(f"has {text} in it, which is taken for a {what}; name another directory")
        return path
