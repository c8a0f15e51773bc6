"""Settings of [catalog] and [clean]: which files are read, and what becomes of their rows, tags and labels."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from pipeline.config_types import FilePath, Names, Section, Share

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
