"""Settings of [features]: how clean tags become indexes and sparse features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config_types import ENGINE, Engine, Lengths, Names, Section, Weights, suggest

BLOCK_KINDS = ("tags", "tag_words", "tag_chars", "text_words", "text_bigrams", "text_chars", "categories")
# The setting of [catalog] that names the columns which a block may read.
COLUMN_OF = {"text_words": "text", "text_bigrams": "text", "text_chars": "text", "categories": "categories"}


def split_block(block: str) -> tuple[str, str]:
    """Return kind and column of a block; no column stands for all that the catalog has.

    >>> split_block("text_words:plot"), split_block("tags")
    (('text_words', 'plot'), ('tags', ''))
    """
    kind, _, column = block.partition(":")
    return kind.strip(), column.strip()


class FeatureSettings(Section):
    """How clean tags become indexes and sparse features."""

    max_tags: int = Field(64, ge=1, description="tags kept of an item in the padded index")
    keep_tags: Literal["frequent", "rare", "first"] = Field(
        "frequent", description="which tags stay where there are more: frequent, rare or first (as the item has them)"
    )
    min_count: int = Field(1, ge=1, description="tags on fewer training items get no id")
    max_vocabulary: int = Field(200_000, ge=1, description="most ids; the most frequent tags keep theirs")
    blocks: Names = Field(
        ("tags", "tag_words", "tag_chars"),
        description="sparse features: tags, tag_words, tag_chars, text_words, text_bigrams, text_chars, categories; "
        "text_words:plot reads one column, text_words all",
    )
    block_weights: Weights = Field((), description="a weight for each block, above 0, at most 1; empty: 1 each")
    weighting: Literal["binary", "counts", "tfidf"] = Field("tfidf", description="binary, counts or tfidf")
    min_document_count: int = Field(1, ge=1, description="a word on fewer training items is no feature")
    max_words: int = Field(100_000, ge=1, description="most features of a block of words")
    chars_min: int = Field(3, ge=1, le=8, description="shortest character n-gram")
    chars_max: int = Field(5, ge=1, le=8, description="longest character n-gram")
    hash_width: int = Field(16_384, ge=16, le=2**24, description="columns of a hashed block")
    text_length: Lengths = Field((400,), description="characters taken of a text: a number, or one for each column")
    max_items: int = Field(
        0,
        ge=0,
        description="most items to train on, those with the lowest hash of their id; of those held out stays the same "
        "share; 0: all",
    )
    shard_items: int = Field(100_000, ge=1, description="training items in a file")
    engine: Engine = Field("local", description=f"who makes them: {ENGINE}")

    @model_validator(mode="after")
    def _blocks_fit(self) -> FeatureSettings:
        for block in self.blocks:
            kind, column = split_block(block)
            if kind not in BLOCK_KINDS:
                raise ValueError(f"blocks: '{kind}' is not one of {', '.join(BLOCK_KINDS)}{suggest(kind, BLOCK_KINDS)}")
            if column and kind not in COLUMN_OF:
                raise ValueError(f"blocks: {block}: {kind} reads the tags; a column can be named behind text_words")
        if self.block_weights and len(self.block_weights) != len(self.blocks):
            raise ValueError(f"block_weights: {len(self.block_weights)} weights for {len(self.blocks)} blocks")
        if not all(0 < weight <= 1 for weight in self.block_weights):
            raise ValueError("block_weights: a weight is above 0 and at most 1, so that values stay within [0, 1]")
        if len(set(self.blocks)) != len(self.blocks):
            raise ValueError(f"blocks: {', '.join(self.blocks)} names a block twice")
        if not self.text_length:
            raise ValueError("text_length: is empty; a number of characters is needed")
        if self.chars_min > self.chars_max:
            raise ValueError(f"chars_min: {self.chars_min} is above chars_max = {self.chars_max}")
        return self
