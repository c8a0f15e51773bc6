"""What the models of the settings are made of: the base of a section, and types that a configuration file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from os.path import expanduser
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.urls import without_file_scheme


def split_names(value: object) -> object:
    """Turn `"genre, subgenre"` of a configuration file into a tuple; leave sequences alone.

    >>> split_names("genre, subgenre")
    ('genre', 'subgenre')
    >>> split_names("")
    ()
    """
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _split_lengths(value: object) -> object:
    """Turn `"400, 100"` of a configuration file, or one number, into a tuple; leave sequences alone.

    >>> _split_lengths("400, 100"), _split_lengths(400)
    (('400', '100'), (400,))
    """
    return (value,) if isinstance(value, int | float) else split_names(value)


Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
Weights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(split_names)]
Lengths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_split_lengths)]
Shares = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], BeforeValidator(_split_lengths)]
FilePath = Annotated[str, AfterValidator(without_file_scheme), AfterValidator(expanduser)]
Share = Annotated[float, Field(ge=0, le=1)]
Engine = Literal["local", "spark"]
ENGINE = "local: this machine; spark: the executors of [spark], to the same bytes"


class Section(BaseModel):
    """One section of luigi.cfg; frozen, and a name that it does not have is an error."""

    # Built when first used: a prediction uses three of them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def suggest(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'epochs'?` for a near miss, else nothing.

    >>> suggest("Epoch", ["epochs", "seed"])
    "; did you mean 'epochs'?"
    """
    close = get_close_matches(name.lower(), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
