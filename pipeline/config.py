"""The settings of every stage: names, types, defaults and meaning stand here and nowhere else.

`tasks/config.py` derives Luigi's configuration sections from these models, luigi.cfg lists them with
their defaults (a test compares), and the library takes them as they are: `Settings()` is the embedded
sample catalog with good defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from unicodedata import category

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.config_learning import NetworkSettings, TrainingSettings
from pipeline.config_nights import GateSettings, MonitoringSettings, ReportSettings
from pipeline.config_types import FilePath, Lengths, Names, Section, Share, Shares, Weights
from pipeline.errors import SettingsError
from pipeline.urls import is_url, without_password

# What the clean items and the scores call their own columns; scores.h5 has `names` besides.
COLUMNS = {
    "item_id",
    "title",
    "tags",
    "tag_counts",
    "tag_order",
    "n_raw_tags",
    "split",
    "path",
    "path_probability",
    "best_paths",
}
COLUMNS |= {"best_path_probabilities", "given_path", "n_tags", "n_unseen_tags", "no_known_tags", "model", "names"}
SAMPLE = Path(__file__).parent / "sample" / "movies.csv"


class CatalogSettings(Section):
    """Which files make the catalog, and what their columns are called."""

    items: FilePath = Field(
        str(SAMPLE),
        description="items: a path, a glob or a directory, here or by URL (s3://, gs://, hdfs://); {date} in it is the "
        "date of the run; .csv .tsv .jsonl .json .parquet, texts also .gz .zst",
    )
    tags: FilePath = Field(
        "", description="a file of tags in the long form, a row per application; empty: tags stand in the items"
    )
    labels: FilePath = Field("", description="a file of labels of its own; empty: labels stand in the items")
    item_id: str = Field("item_id", description="column of the id in the items; empty: row numbers, from 1")
    title: str = Field("title", description="column of the title; empty: none")
    text: Names = Field((), description="columns of free text, kept for features of text")
    categories: Names = Field((), description="columns of one value out of few, kept for features of categories")
    numbers: Names = Field((), description="columns of numbers, kept as dense features")
    vectors: Names = Field((), description="columns of lists of numbers, such as embeddings, kept as dense features")
    tags_column: str = Field(
        "tags", description="column of tags (a list or a delimited string, or one tag a row in `tags`); empty: none"
    )
    tag_separators: str = Field(
        ";", description="characters that separate tags within a string; empty: the whole string is one tag"
    )
    word_columns: Names = Field((), description="columns whose words count as tags too")
    levels: Names = Field(("genre", "subgenre", "theme"), description="names of the levels in the results, top first")
    level_columns: Names = Field((), description="columns of the labels, one a level; empty: called like the levels")
    split: str = Field("", description="column that says train, validation or test; empty: by a hash of the id")
    tags_item_id: str = Field("", description="column of the id in the file of tags; empty: as in the items")
    tags_count: str = Field(
        "",
        description="column of counts or weights in the file of tags (their sum, rounded, at least 1); empty: 1 a row",
    )
    tags_user: str = Field("", description="column of who applied the tag in the file of tags; empty: not known")
    labels_item_id: str = Field("", description="column of the id in the file of labels; empty: as in the items")
    column_names: Names = Field((), description="names of the columns where the items (CSV, TSV) have no header")
    taxonomy: FilePath = Field(
        "",
        description="a file of the allowed paths, a column per level, or of rows parent, child; "
        "empty: learned from the labels",
    )

    @model_validator(mode="after")
    def _levels_fit(self) -> CatalogSettings:
        if not self.levels:
            raise ValueError("levels: at least one level is needed")
        if len({level.casefold() for level in self.levels}) != len(self.levels):
            raise ValueError(f"levels: {', '.join(self.levels)} names a level twice; case does not count")
        for level in self.levels:
            if "/" in level or level == "." or not level.isprintable():
                raise ValueError(f"levels: '{level}' cannot be the name of a column in HDF5; leave / and . out")
        taken = COLUMNS | {f"{level.casefold()}_probability" for level in self.levels}
        for level in self.levels:
            if level.casefold() in taken:
                raise ValueError(f"levels: '{level}' is a column of the results; call the level something else")
        if self.level_columns and len(self.level_columns) != len(self.levels):
            raise ValueError(f"level_columns: {len(self.level_columns)} columns for {len(self.levels)} levels")
        if len(set(self.label_columns)) != len(self.label_columns):
            raise ValueError(f"level_columns: {', '.join(self.level_columns)} names a column twice")
        if self.split in self.label_columns:
            raise ValueError(f"split: '{self.split}' is a column of labels")
        if both := set(self.numbers) & set(self.vectors):
            raise ValueError(f"vectors: '{min(both)}' is among the numbers too; name it once")
        if not self.tags_column and not self.word_columns:
            raise ValueError("tags_column: empty, and word_columns too: there is nothing to take tags from")
        for name in ("tags_count", "tags_user"):
            if getattr(self, name) and not self.tags:
                raise ValueError(
                    f"{name}: {getattr(self, name)} is a column of the file of tags, and [catalog] tags is empty"
                )
        return self

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Return the columns that hold the labels, one a level."""
        return self.level_columns or self.levels


class CleanSettings(Section):
    """How raw tags become clean tags, which rows are rejected, and how items are split."""

    fix_mojibake: bool = Field(False, description="repair text that was read in a wrong encoding (needs ftfy)")
    unescape_html: bool = Field(True, description="turn &amp; into &")
    unescape_url: bool = Field(False, description="turn %20 into a space")
    unicode_nfkc: bool = Field(True, description="bring Unicode to NFKC: full width, ligatures, composed accents")
    lowercase: bool = Field(True, description="fold upper and lower case")
    strip_punctuation: bool = Field(
        True, description="drop punctuation around a tag, and treat - and _ within as a space"
    )
    max_tag_length: int = Field(100, ge=1, description="a longer tag is rejected, its item stays (characters)")
    aliases: FilePath = Field("", description="a file of lines `sci fi -> science fiction`; empty: none")
    stop_tags: Names = Field((), description="tags that are dropped")
    stop_list: FilePath = Field("", description="a file of more of them, one a line; empty: none")
    min_tag_count: int = Field(1, ge=1, description="a tag that an item was given fewer times is dropped from it")
    min_tag_users: int = Field(
        1, ge=1, description="a tag that fewer users gave an item is dropped from it; above 1 needs [catalog] tags_user"
    )
    drop_label_tags: bool = Field(
        False, description="drop tags that are the name of a label; they are counted in any case"
    )
    stop_label: str = Field("-", description="a label that says: the path ends here; an empty label is unknown")
    min_class_items: int = Field(
        1, ge=1, description="rarer classes are not learned; a declared taxonomy is kept whole (labelled items)"
    )
    max_reject_share: Share = Field(0.05, description="a larger share of rejected rows stops the run")
    validation_share: Share = Field(0.15, description="share of the items held out to stop training and to calibrate")
    test_share: Share = Field(0.10, description="share of the items held out to report figures")
    split_salt: str = Field("tagladder", description="another word gives another split by hash")
    max_unseen_share: Share = Field(
        0.25, description="held, exit 30: a larger share of the tags was not in the last published run"
    )
    max_tag_distance: Share = Field(
        0.5, description="held: tags are further from the last run's (Jensen-Shannon distance of their frequencies)"
    )
    max_label_distance: Share = Field(0.25, description="held: the same of the labels")
    max_row_change: float = Field(
        0.5, ge=0, description="held: the number of items grew or shrank by a larger share of the last run's"
    )
    accept_drift: bool = Field(False, description="true: let a catalog that has moved through")

    @model_validator(mode="after")
    def _some_training(self) -> CleanSettings:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share: with test_share it leaves nothing to train on")
        return self


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


Engine = Literal["local", "spark"]
ENGINE = "local: this machine; spark: the executors of [spark], to the same bytes"


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


def suggest(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'epochs'?` for a near miss, else nothing.

    >>> suggest("Epoch", ["epochs", "seed"])
    "; did you mean 'epochs'?"
    """
    close = get_close_matches(name.lower(), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


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
