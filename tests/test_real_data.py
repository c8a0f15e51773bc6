"""The job on three real catalogs, each with its file of tests/settings, in one epoch."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

SETTINGS = Path(__file__).parent / "settings"
QUICK = (
    "--training-epochs",
    "1",
    "--training-compile-mode",
    "fast_compile",
    "--training-batch-size",
    "64",
    "--training-members",
    "1",
    "--training-cross-fit",
    "false",
    "--training-optimizer",
    "adam",
    "--training-loss",
    "nll",
    "--gate-enabled",  # what one epoch teaches is not always more than the most frequent class
    "false",
    "--network-wide",  # one of the large tables less
    "false",
)


@pytest.fixture(scope="module")
def run(real_data, run_luigi, tmp_path_factory):
    def run(name: str) -> list[dict]:
        root = tmp_path_factory.mktemp(name)
        environment = {"LUIGI_CONFIG_PATH": str(SETTINGS / f"{name}.cfg"), "TAGLADDER_DATA": str(real_data)}
        done = run_luigi("ScoreCatalog", "--storage-root", str(root), *QUICK, environment=environment)
        assert done.returncode == 0, done.stderr
        return pq.read_table(root / "published" / "latest" / "scores.parquet").to_pylist()

    return run


def test_movies_join_long_tags_titles_and_labels_by_id(run):
    scores = {row["item_id"]: row for row in run("movies")}
    assert len(scores) == 9_742
    assert sum(row["n_tags"] == 0 for row in scores.values()) == 8_170
    assert scores[1]["title"] == "Toy Story (1995)"
    assert scores[1]["given_path"] == ["Fantasy", "Light fantasy", "Fantasy Comedy"]
    assert scores[1]["n_tags"] == 2  # fun, pixar (twice)


@pytest.mark.slow
def test_products_learn_from_one_file_of_json_lines_and_score_another(run):
    scores = run("products")
    assert len(scores) == 3_000
    assert all(len(row["given_path"]) == 3 for row in scores)
    right = sum(row["lvl1"] == row["given_path"][0] for row in scores) / len(scores)
    assert right > 0.46  # the majority class has .442


@pytest.mark.slow
def test_articles_have_neither_header_nor_ids(run):
    scores = run("articles")
    assert [row["item_id"] for row in scores] == list(range(1, 5_001))
    assert min(row["n_tags"] for row in scores) > 0
    assert {row["title"] for row in scores} == {None}
