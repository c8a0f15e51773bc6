"""The settings of stage 3, [network] and [training]; `pipeline.config` holds them all."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.config_types import FilePath, Section, Weights


def _check_refresh(value: str) -> str:
    """Return the value. Raises ValueError for what says no time to train."""
    if re.fullmatch(r"changed|pinned|[1-9][0-9]{0,3} days?", value) is None:
        raise ValueError("is none of changed, pinned and a number of days such as `7 days`")
    return value


Refresh = Annotated[str, AfterValidator(_check_refresh)]


class NetworkSettings(Section):
    """What the network is made of."""

    # LayerNorm brings a single unit to 0 whatever it reads, and nothing would be learned.
    hidden: int = Field(64, ge=2, le=65_536, description="units of the hidden layer and of the state")
    kind: Literal["feedback", "single_shot"] = Field(
        "feedback", description="feedback: a GRU stepped once a level; single_shot: every level from the hidden layer"
    )
    norm: Literal["layer", "batch", "none"] = Field("layer", description="how the hidden layer is normalised")
    wide: bool = Field(False, description="a linear path from the sparse features straight to every level's logits")
    label_feedback: bool = Field(False, description="the expected label of a level is fed into the next step")
    parent_mask: bool = Field(False, description="a level's logits are moved by the log-probabilities of the parents")
    experts: int = Field(0, ge=0, le=1024, description="experts behind a top-k gate; 0: none")
    top_k: int = Field(2, ge=1, description="experts that decide on an item; with 1 the gate cannot learn")
    experts_at: Literal["hidden", "outputs"] = Field(
        "hidden", description="hidden: experts are hidden layers; outputs: each predicts the levels, the gate blends"
    )

    @model_validator(mode="after")
    def _gate_fits(self) -> NetworkSettings:
        if self.experts == 1 or 0 < self.experts < self.top_k:
            raise ValueError(f"experts: {self.experts} experts cannot have the top_k = {self.top_k} chosen of them")
        return self

    @model_validator(mode="after")
    def _steps_fit(self) -> NetworkSettings:
        if self.label_feedback and self.kind == "single_shot":
            raise ValueError("label_feedback: a single_shot network has no next step to feed; use kind = feedback")
        return self


class TrainingSettings(Section):
    """How the network is trained."""

    engine: Literal["auto", "theano", "pytensor"] = Field(
        "auto", description="auto: Theano where it is installed, else PyTensor"
    )
    compile_mode: Literal["fast_run", "fast_compile"] = Field(
        "fast_run", description="fast_compile starts at once and runs slowly (tests)"
    )
    epochs: int = Field(60, ge=1, description="most passes over the training part")
    patience: int = Field(12, ge=1, description="epochs without a better validation loss before training stops")
    batch_size: int = Field(64, ge=1, description="items in a step")
    tagged_only: bool = Field(
        False,
        description="items without tags are left out of training and its validation, not of what export measures",
    )
    optimizer: Literal["adam", "adagrad", "row_wise"] = Field(
        "adam",
        description="adam or adagrad, on touched rows for the tables; row_wise: adam, and adagrad with one step size "
        "a row for the tables, best with wide",
    )
    learning_rate: float = Field(0.005, gt=0, description="step size, at its highest")
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine: falls to 0 over all epochs")
    warm_up: float = Field(0.0, ge=0, description="epochs in which the step size rises from 0")
    clip_norm: float = Field(5.0, ge=0, description="gradients are scaled down to this norm; 0: never")
    weight_decay: float = Field(0.0, ge=0, description="share of a weight taken off per unit of step size")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of the hidden units dropped in a step")
    tag_dropout: float = Field(0.1, ge=0, lt=1, description="share of the tags in an item's index dropped in a step")
    feature_dropout: float = Field(0.0, ge=0, lt=1, description="share of an item's sparse features dropped in a step")
    loss: Literal["nll", "hinge"] = Field(
        "nll",
        description="nll: negative log-likelihood; hinge: squared, one against the rest, which clip_norm = 1 suits",
    )
    label_smoothing: float = Field(
        0.05, ge=0, lt=1, description="probability spread evenly over the classes of a level"
    )
    level_weights: Weights = Field((), description="weight of each level's loss; empty: 1 each")
    class_weights: Literal["none", "balanced", "effective"] = Field(
        "none", description="balanced: rare classes count as much; effective: by the effective number of their items"
    )
    class_weights_beta: float = Field(
        0.999, gt=0, lt=1, description="of the effective number: (1 - beta^n) / (1 - beta)"
    )
    expert_balance: float = Field(0.01, ge=0, description="weight of the term that keeps experts equally busy")
    keep: Literal["best", "averaged", "last"] = Field(
        "best",
        description="weights at the end: of the best epoch, the best mean over the ends of consecutive epochs, or of "
        "the last epoch, before which nothing stops training",
    )
    averaged_epochs: int = Field(5, ge=1, description="epochs in the mean of keep = averaged")
    members: int = Field(1, ge=1, le=100, description="networks trained from different seeds and averaged")
    cross_fit: bool = Field(
        False,
        description="each member holds out another fold of the training part, and by these the model is calibrated; "
        "for few items, with [clean] validation_share = 0",
    )
    warm_start: FilePath = Field(
        "", description="weights to start from: last (the last published model), or a model.h5; empty: none"
    )
    refresh: Refresh = Field(
        "changed", description="when to train again: changed inputs or settings, every `7 days`, or pinned: never"
    )
    seed: int = Field(7, ge=0, description="seed of initial weights, order and dropout")
    prefetch: int = Field(4, ge=0, description="batches made ready in advance; does not change results")

    @model_validator(mode="after")
    def _folds_fit(self) -> TrainingSettings:
        if self.cross_fit and self.members == 1:
            raise ValueError(
                "cross_fit: one member has no other to learn from the fold that it holds out; raise members"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> TrainingSettings:
        if self.warm_up > self.epochs:
            raise ValueError(
                f"warm_up: {self.warm_up:g} is more than all {self.epochs} epochs; it counts epochs, not steps"
            )
        return self
