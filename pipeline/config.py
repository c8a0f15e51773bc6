"""The settings of every stage: names, types, defaults and meaning stand in these modules and nowhere else.

`tasks/config.py` derives Luigi's configuration sections from these models, luigi.cfg lists them with
their defaults (a test compares), and the library takes them as they are: `Settings()` is the embedded
sample catalog with good defaults.
"""

from __future__ import annotations

from typing import Any
from unicodedata import category

from pydantic import Field, ValidationError, model_validator

from pipeline.config_catalog import CatalogSettings, CleanSettings
from pipeline.config_features import COLUMN_OF, FeatureSettings, split_block
from pipeline.config_learning import NetworkSettings, TrainingSettings
from pipeline.config_nights import GateSettings, MonitoringSettings, ReportSettings
from pipeline.config_results import ExportSettings, ScoringSettings, StorageSettings
from pipeline.config_types import Section, suggest
from pipeline.errors import SettingsError
from pipeline.urls import without_password


class Settings(Section):
    """Every section; `Settings(training={"epochs": 5})` changes one value."""

    catalog: CatalogSettings = Field(default_factory=CatalogSettings)
    clean: CleanSettings = Field(default_factory=CleanSettings)
    features: FeatureSettings = Field(default_factory=FeatureSettings)
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    export: ExportSettings = Field(default_factory=ExportSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    scoring: ScoringSettings = Field(default_factory=ScoringSettings)
    report: ReportSettings = Field(default_factory=ReportSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    monitoring: MonitoringSettings = Field(default_factory=MonitoringSettings)

    @model_validator(mode="after")
    def _sections_fit(self) -> Settings:
        for kind, column in map(split_block, self.features.blocks):
            setting = COLUMN_OF.get(kind)
            columns = getattr(self.catalog, setting) if setting else ()
            if setting and not columns:
                what = "text column" if setting == "text" else "column of categories"
                raise ValueError(f"features.blocks: {kind} needs a {what}; name one in [catalog] {setting}")
            if column and column not in columns:
                raise ValueError(f"features.blocks: {kind}:{column} reads none of [catalog] {setting}")
        lengths, texts = self.features.text_length, self.catalog.text
        if len(lengths) not in (1, len(texts)):
            raise ValueError(f"features.text_length: {len(lengths)} lengths for {len(texts)} columns of [catalog] text")
        if self.clean.min_tag_users > 1 and not self.catalog.tags_user:
            raise ValueError(
                "clean.min_tag_users: needs to know who gave a tag; name the column in [catalog] tags_user"
            )
        if len(self.scoring.thresholds) not in (0, 1, len(self.catalog.levels)):
            raise ValueError(
                f"scoring.thresholds: {len(self.scoring.thresholds)} values for {len(self.catalog.levels)} levels"
            )
        weights = self.training.level_weights
        if weights and not any(weights):
            raise ValueError("training.level_weights: all are 0; there is nothing to learn")
        if weights and len(weights) != len(self.catalog.levels):
            raise ValueError(f"training.level_weights: {len(weights)} weights for {len(self.catalog.levels)} levels")
        if self.training.cross_fit and self.clean.validation_share:
            raise ValueError(
                f"training.cross_fit: [clean] validation_share = {self.clean.validation_share:g} holds items back "
                "beside the folds; set it to 0"
            )
        if self.network.norm == "batch" and self.training.batch_size == 1:
            raise ValueError("network.norm: batch needs more than one item in a step; raise [training] batch_size")
        if len(self.catalog.levels) == 1:
            for name in ("label_feedback", "parent_mask"):
                if getattr(self.network, name):
                    raise ValueError(f"network.{name}: does nothing with one level; switch it off")
        return self


def make_settings(sections: dict[str, dict[str, Any]]) -> Settings:
    """Return settings from names and values as a configuration file gives them.

    Raises SettingsError that names section, setting, value and what is allowed.

    >>> make_settings({"training": {"epochs": "5"}}).training.epochs
    5
    """
    for section, values in sections.items():
        if section not in Settings.model_fields:
            raise SettingsError(f"[{section}] is not a section{suggest(section, list(Settings.model_fields))}")
        known = list(type(getattr(Settings(), section)).model_fields)
        for name, value in values.items():
            if name not in known:
                given = without_password(f"{name} = {value}")
                raise SettingsError(f"[{section}] {given}: no such setting{suggest(name, known)}")
    try:
        return Settings.model_validate(sections)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _on_one_line(value: object) -> str:
    """Return a value as it was given, with escapes where it has line breaks or other control characters."""
    text = str(value)
    return repr(text) if any(category(character) == "Cc" for character in text) else text


def _explain(error: ValidationError) -> str:
    """Return one line a mistake: section, setting, value, and what pydantic would have allowed."""
    lines = []
    for mistake in error.errors():
        place = [str(part) for part in mistake["loc"]]
        message = mistake["msg"].removeprefix("Value error, ")
        section = f"[{place[0]}] " if place else ""
        given = without_password(f"{place[1]} = {_on_one_line(mistake['input'])}") if len(place) > 1 else ""
        lines.append(f"{section}{given and f'{given}: '}{message}")
    return "\n".join(lines)
