"""Settings of nights that nobody watches: what a new model must reach before it scores, and who hears of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config_types import FilePath, Section, Share


class GateSettings(Section):
    """What a new model must reach before it scores; else the last accepted one does, and the command ends with 30."""

    enabled: bool = Field(True, description="false: every model scores that could be exported")
    max_path_drop: Share = Field(
        0.02,
        description="refused: on today's validation items its whole paths are right less often than the last accepted "
        "model's by more, and by more than chance explains",
    )
    max_level_drop: Share = Field(0.02, description="refused: the same of any level")
    min_coverage: Share = Field(
        0.5, description="refused: fewer of the items to score have a tag that it knows (share)"
    )
    max_calibration_error: Share = Field(
        0.25, description="refused: the expected calibration error of its paths is larger"
    )
    max_top_share: Share = Field(0.95, description="refused: one class of the top level is given to more items (share)")
    min_items: int = Field(100, ge=1, description="a figure of fewer items is told, and refuses nothing")
    accept: str = Field(
        "",
        pattern=r"^([0-9a-f]{8,64})?$",
        description="a refused model to let through: its fingerprint, or the first 8 digits of it or more",
    )


class ReportSettings(Section):
    """The page that a person looks at the next morning."""

    enabled: bool = Field(True, description="false: the main job makes none; luigi --module tasks Report does")
    examples: int = Field(50, ge=1, le=1000, description="items, tags or rows in a list of the page")
    max_review: int = Field(1000, ge=1, le=100_000, description="most labelled items in labels_to_review.csv")


class MonitoringSettings(Section):
    """Who hears of a night; no result depends on it."""

    prometheus: FilePath = Field(
        "", description="a file .prom for the textfile collector of Prometheus, replaced after every stage; empty: none"
    )
    log: Literal["none", "text", "json"] = Field(
        "none", description="lines with the id of the run: none, text, or json, an object a line"
    )
    log_file: FilePath = Field("", description="the file to which they are appended; empty: standard error")
