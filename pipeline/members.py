"""The members of an ensemble: what the fingerprint of each is called, and the settings by which it is trained."""

from __future__ import annotations

from pipeline.config import Settings

# Between the seeds of two members: ensembles of neighbouring seeds share no member.
SEED_STEP = 1_000_003


def member_names(settings: Settings) -> tuple[str, ...]:
    """Return what the fingerprints of the trained members are called.

    >>> member_names(Settings(training={"members": 3}))
    ('train', 'train_2', 'train_3')
    """
    return tuple(member_name(number) for number in range(1, settings.training.members + 1))


def member_name(number: int) -> str:
    """Return what the fingerprint of a member is called; the first is the single network of the same settings."""
    return "train" if number == 1 else f"train_{number}"


def of_member(settings: Settings, number: int) -> Settings:
    """Return the settings by which a member is trained: the first as a single network, the others from other seeds."""
    seed = settings.training.seed + (number - 1) * SEED_STEP
    training = settings.training.model_copy(update={"seed": seed})
    return settings.model_copy(update={"training": training})
