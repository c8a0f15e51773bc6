"""The main job with every kind of feature: through all five stages, and the same scores from the model file."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import load_model

SETTINGS = """
[catalog]
items = {items}
levels = genre
text = name, plot
categories = brand
numbers = year
vectors = embedding
[features]
blocks = tags, tag_words, text_words:plot, text_bigrams:name, text_chars:name, categories
block_weights = 1, 0.5, 1, 1, 0.25, 1
text_length = 50, 20
hash_width = 256
max_tags = 2
keep_tags = first
"""
QUICK = ("--training-epochs", "2", "--training-compile-mode", "fast_compile", "--network-hidden", "4")


@pytest.fixture(scope="module")
def job(run_luigi, tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("all"), random.Random(5)
    rows = []
    for number in range(60):
        horror = number % 2
        rows.append(
            {
                "item_id": number,
                "title": f"Film {number}",
                "tags": rng.sample(["zombies", "mall", "city", "love", "deep space"], 3),
                "name": "Night of the Dead" if horror else "Manhattan Nights",
                "plot": "they come and eat" if horror else "they come and talk",
                "brand": ["Laurel ", "orion", None][number % 3],
                "year": None if number % 5 == 0 else 1970 + number,
                "embedding": None if number % 7 == 0 else [float(horror), 0.5],
                "genre": "Horror" if horror else "Comedy",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), root / "items.parquet")
    (root / "my.cfg").write_text(SETTINGS.format(items=root / "items.parquet"))
    environment = {"LUIGI_CONFIG_PATH": str(root / "my.cfg")}
    done = run_luigi("ScoreCatalog", "--storage-root", str(root / "out"), *QUICK, environment=environment)
    assert done.returncode == 0, done.stderr
    return root / "out"


def test_every_kind_of_feature_has_its_columns(job):
    model = load_model(job / "published" / "latest_model.h5")
    transform = model.transform
    kinds = {name.split(":")[0] for name in transform.feature_names(range(transform.n_features))}
    assert kinds == {"tag", "word", "plot.word", "name.bigram", "name.chars", "brand.category"}
    assert transform.n_dense == model.network.config.n_dense == 5
    assert transform.dense_names()[0] == "number:year"


def test_the_model_file_gives_the_scores_of_the_job(job):
    model = load_model(job / "published" / "latest_model.h5")
    (items,) = (path for path in (job / "clean").glob("*/items.parquet"))
    scores = pq.read_table(job / "published" / "latest" / "scores.parquet")
    again = model.score_batch(pq.read_table(items).combine_chunks().to_batches()[0], clean=False)
    assert len(scores) == 60
    assert again["genre"].to_pylist() == scores["genre"].to_pylist()
    np.testing.assert_array_equal(np.asarray(again["path_probability"]), np.asarray(scores["path_probability"]))


def test_tags_alone_are_scored_with_all_else_missing(job):
    model = load_model(job / "published" / "latest_model.h5")
    (found,) = model.predict([["Mall", "zombies", "city"]])
    assert found.n_tags == 3 and found.n_unseen_tags == 0
