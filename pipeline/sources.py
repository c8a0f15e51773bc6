"""Stage 2: which columns of items.parquet the features read, and what each block of them is made of."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.bags import Bag, BatchBags
from pipeline.config_catalog import CatalogSettings
from pipeline.config_features import COLUMN_OF, FeatureSettings, split_block
from pipeline.errors import SettingsError

_TITLES = {
    "tags": "tag",
    "tag_words": "word",
    "tag_chars": "chars",
    "text_words": "word",
    "text_bigrams": "bigram",
    "text_chars": "chars",
    "categories": "category",
}


@dataclass(frozen=True)
class FeatureColumns:
    """The columns of the catalog that features are made of, beside the tags."""

    text: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()

    @classmethod
    def of(cls, catalog: CatalogSettings) -> FeatureColumns:
        """Return the columns that a catalog names."""
        return cls(catalog.text, catalog.categories, catalog.numbers, catalog.vectors)

    @property
    def names(self) -> tuple[str, ...]:
        """Return what they are called in items.parquet.

        >>> FeatureColumns(text=("plot",), numbers=("year",)).names
        ('text.plot', 'dense.year')
        """
        texts = (f"text.{name}" for name in self.text)
        categories = (f"category.{name}" for name in self.categories)
        return (*texts, *categories, *(f"dense.{name}" for name in (*self.numbers, *self.vectors)))

    def text_lengths(self, settings: FeatureSettings) -> dict[str, int]:
        """Return how many characters are taken of each text column."""
        lengths = settings.text_length
        return dict(zip(self.text, lengths if len(lengths) > 1 else lengths * len(self.text), strict=True))


@dataclass(frozen=True)
class Source:
    """What a block is made of: its kind, the column it reads (empty for blocks of tags), and its weight."""

    kind: str
    column: str
    weight: float

    @property
    def hashed(self) -> bool:
        """Return whether the block's columns are hash buckets, not terms of a vocabulary."""
        return self.kind.endswith("_chars")

    def bag(self, bags: BatchBags) -> Bag:
        """Return the batch's bag that the block reads."""
        if self.kind == "tag_words":
            return bags.tag_words
        if self.kind.startswith("tag"):
            return bags.tags
        if self.kind == "categories":
            return bags.categories(self.column)
        return bags.text_bigrams(self.column) if self.kind == "text_bigrams" else bags.text_words(self.column)

    def name(self, term: str) -> str:
        """Return the name of a feature.

        >>> Source("tags", "", 1.0).name("zombies"), Source("text_words", "plot", 1.0).name("undead")
        ('tag:zombies', 'plot.word:undead')
        """
        return f"{self.column}{'.' if self.column else ''}{_TITLES[self.kind]}:{term}"


def sources(settings: FeatureSettings, columns: FeatureColumns) -> tuple[Source, ...]:
    """Return the blocks in the order of their columns: as in the settings, once for each column that they read.

    Raises SettingsError for a block where there is no column for it.
    """
    weights = settings.block_weights or (1.0,) * len(settings.blocks)
    found = []
    for (kind, column), weight in zip(map(split_block, settings.blocks), weights, strict=True):
        setting = COLUMN_OF.get(kind)
        known: tuple[str, ...] = getattr(columns, setting) if setting else ("",)
        if not known or (column and column not in known):
            what = f"column '{column}'" if column else "column"
            raise SettingsError(f"[features] blocks: {kind} needs a {setting} {what}; name it in [catalog] {setting}")
        found += [Source(kind, name, weight) for name in ((column,) if column else known)]
    return tuple(found)
