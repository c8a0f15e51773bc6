"""Stage 5: a batch in, a batch out, whole catalogs in files; nothing depends on how the work is cut."""

import itertools
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import TAXONOMY, make_items, make_model

from pipeline import artifacts, files
from pipeline.config import Settings, make_settings
from pipeline.config_results import ScoringSettings
from pipeline.decoding import decode, decode_raw
from pipeline.errors import CatalogError, FeatureError, ModelError, SettingsError
from pipeline.network import Inputs
from pipeline.progress import SILENT, Progress
from pipeline.score_catalog import Effort, score
from pipeline.scored import SHARD_ITEMS
from pipeline.scoring import score_batch
from pipeline.taxonomy import Taxonomy

MODEL = make_model()
RAW = ScoringSettings(decoding="raw")
COLUMNS = [
    *("item_id", "title", "genre", "genre_probability", "theme", "theme_probability", "path", "path_probability"),
    *("best_paths", "best_path_probabilities", "given_path", "n_tags", "n_unseen_tags", "no_known_tags", "model"),
]


def scores_of(items, **changes):
    return score_batch(MODEL, items, clean=False, scoring=ScoringSettings(**changes)).to_pydict()


def publish_stages(root, items, *, n_rejects=2):
    """Publish an export and a clean folder, as the tasks do."""

    def write_clean(folder):
        pq.write_table(pa.Table.from_batches([items]), folder / "items.parquet")
        rejects = {"scope": ["item"] * n_rejects + ["tag"], "reason": ["no id"] * (n_rejects + 1)}
        pq.write_table(pa.table(rejects), folder / "rejects.parquet")

    artifacts.publish(root / "export", lambda folder: MODEL.save(folder / "model.h5"), work=root / "w1", facts={})
    artifacts.publish(root / "clean", write_clean, work=root / "w2", facts={})


def score_into(root, name, *, progress=SILENT, shard_items=SHARD_ITEMS, **changes):
    (root / name).mkdir()
    chosen = Settings(scoring=changes)
    score(
        chosen,
        root / "export" / "model.h5",
        root / "clean",
        root / name,
        run="r1",
        progress=progress,
        effort=Effort(shard_items=shard_items),
    )
    return root / name


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- a batch


def test_the_columns_are_those_of_the_design():
    assert list(scores_of(make_items(3))) == COLUMNS


def test_scores_are_the_networks_cooled_and_decoded():
    items = make_items(9)
    features = MODEL.transform.transform(items)
    logits = MODEL.network.logits(Inputs(features.tag_index, features.features))
    # The temperatures of the small model are 1.5 and 2.
    decoded = decode([logits[0] / 1.5, logits[1] / 2], TAXONOMY, n_best=3)
    scores = scores_of(items)
    assert scores["path"] == [TAXONOMY.path_names(path) for path in decoded.path[:, 0]]
    assert scores["path_probability"] == pytest.approx(decoded.path_probability[:, 0])
    assert scores["genre_probability"] == pytest.approx(decoded.level_probability[:, 0])
    assert scores["theme_probability"] == pytest.approx(decoded.level_probability[:, 1])
    assert scores["best_paths"] == [[TAXONOMY.path_names(path) for path in row] for row in decoded.path]


def test_raw_heads_give_one_path_of_independent_labels():
    items = make_items(30)
    features = MODEL.transform.transform(items)
    logits = MODEL.network.logits(Inputs(features.tag_index, features.features))
    decoded = decode_raw([logits[0] / 1.25, logits[1] / 0.75])
    scores = score_batch(MODEL, items, clean=False, scoring=RAW).to_pydict()
    assert scores["genre"] == [TAXONOMY.name(0, c) for c in decoded.classes[:, 0, 0]]
    assert scores["theme"] == [TAXONOMY.name(1, c) for c in decoded.classes[:, 0, 1]]
    assert scores["path_probability"] == pytest.approx(decoded.path_probability[:, 0])
    assert all(len(paths) == 1 for paths in scores["best_paths"])


def test_a_label_is_null_from_the_stop_on_and_its_probability_is_that_of_the_stop():
    scores = scores_of(make_items(60))
    stopped = [k for k, path in enumerate(scores["path"]) if path == ["Comedy"]]
    assert stopped
    for k in stopped:
        assert (scores["genre"][k], scores["theme"][k]) == ("Comedy", None)
        assert scores["theme_probability"][k] == pytest.approx(scores["path_probability"][k])


def test_given_labels_stand_beside_the_predicted_ones():
    columns = make_items(4).to_pydict()
    columns |= {"genre": ["Horror", "Drama", None, "Western"], "theme": ["Zombies", "-", None, None]}
    items = pa.RecordBatch.from_pydict(columns)
    assert scores_of(items)["given_path"] == [["Horror", "Zombies"], ["Drama"], None, ["Western"]]


def test_items_without_labels_titles_or_counts_are_scored():
    items = make_items(5).select(["item_id", "tags"])
    scores = scores_of(items)
    assert scores["given_path"] == scores["title"] == [None] * 5
    once = items.append_column("tag_counts", pa.array([[1] * len(row) for row in items["tags"].to_pylist()]))
    assert scores == scores_of(once)


def test_a_tag_that_was_applied_more_often_counts_for_more():
    items = make_items(5)
    assert max(itertools.chain(*items["tag_counts"].to_pylist())) > 1
    assert scores_of(items)["path_probability"] != scores_of(items.drop_columns(["tag_counts"]))["path_probability"]


def test_an_item_without_tags_is_scored_and_flagged():
    items = pa.RecordBatch.from_pydict(
        {"item_id": [1, 2, 3], "tags": pa.array([[], None, ["unheard of"]], pa.list_(pa.string()))}
    )
    scores = scores_of(items)
    assert scores["n_tags"] == [0, 0, 1]
    assert scores["n_unseen_tags"] == [0, 0, 1]
    assert scores["no_known_tags"] == [True, True, True]
    known = pa.RecordBatch.from_pydict({"item_id": [1], "tags": [["unheard of", "war"]]})
    assert scores_of(known)["no_known_tags"] == [False]
    assert scores["path"][0] == scores["path"][1]
    assert all(0 < p < 1 for p in scores["path_probability"])


@pytest.mark.parametrize("ids", [["a", "b", "c"], [2**40, -1, 0]])
def test_an_id_keeps_its_type(ids):
    assert scores_of(make_items(3, ids=ids))["item_id"] == ids


def test_raw_tags_are_cleaned_on_request():
    raw = pa.RecordBatch.from_pydict({"item_id": [1], "tags": [["ZOMBIES ", "zombies", "Farmhouse"]]})
    clean = pa.RecordBatch.from_pydict({"item_id": [1], "tags": [["farmhouse", "zombies"]], "tag_counts": [[1, 2]]})
    assert score_batch(MODEL, raw, clean=True, scoring=ScoringSettings()).equals(
        score_batch(MODEL, clean, clean=False, scoring=ScoringSettings())
    )


def test_an_empty_batch_gives_an_empty_batch():
    scores = score_batch(MODEL, make_items(0), clean=False, scoring=ScoringSettings())
    assert (scores.num_rows, scores.schema.names) == (0, COLUMNS)


@pytest.mark.parametrize("column", ["item_id", "tags"])
def test_a_missing_column_is_named(column):
    with pytest.raises(CatalogError, match=f"column '{column}' is missing"):
        scores_of(make_items(2).drop_columns([column]))


def test_tags_of_another_type_are_told():
    with pytest.raises(FeatureError, match="column 'tags'"):
        scores_of(pa.RecordBatch.from_pydict({"item_id": [1], "tags": [5]}))


def test_a_level_that_is_called_like_a_column_is_refused():
    taxonomy = Taxonomy.of(("genre", "title"), list(TAXONOMY.classes[-1]))
    model = make_model()
    object.__setattr__(model, "taxonomy", taxonomy)
    with pytest.raises(SettingsError, match="'title' is the name of another column"):
        score_batch(model, make_items(1), clean=False, scoring=ScoringSettings())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=5), st.sampled_from([1, 3, 16, 64]))
def test_every_item_is_scored_once_and_cutting_at_whole_passes_changes_nothing(cuts, batch_size):
    items = make_items(40)
    scoring = ScoringSettings(batch_size=batch_size)
    whole = score_batch(MODEL, items, clean=False, scoring=scoring)
    edges = sorted({0, 40, *(min(40, cut * batch_size) for cut in cuts)})
    parts = [items.slice(start, end - start) for start, end in itertools.pairwise(edges)]
    scores = [score_batch(MODEL, part, clean=False, scoring=scoring) for part in parts]
    assert pa.Table.from_batches(scores).combine_chunks().equals(pa.Table.from_batches([whole]).combine_chunks())
    assert whole["item_id"].to_pylist() == list(range(1, 41))


@settings(max_examples=25)
@given(st.lists(st.lists(st.text(max_size=8), max_size=5), min_size=1, max_size=8))
def test_whatever_the_tags_the_path_is_legal_and_its_probabilities_agree(rows):
    items = pa.RecordBatch.from_pydict(
        {"item_id": list(range(len(rows))), "tags": pa.array([sorted(set(row)) for row in rows], pa.list_(pa.string()))}
    )
    scores = scores_of(items, batch_size=4)
    legal = [TAXONOMY.path_names(path) for path in range(len(TAXONOMY.paths))]
    for k in range(len(rows)):
        assert scores["path"][k] in legal
        assert scores["path"][k] == scores["best_paths"][k][0]
        assert 1 + 1e-6 >= scores["genre_probability"][k] >= scores["theme_probability"][k] - 1e-6
        assert scores["theme_probability"][k] == pytest.approx(scores["path_probability"][k], abs=1e-6)
        assert scores["n_tags"][k] == len(set(rows[k]))


# --- thresholds


@pytest.mark.parametrize("thresholds", [(0.3,), (0.4, 0.25), (0.2, 0.5), (1.0,)])
@pytest.mark.parametrize("decoding", ["legal", "raw"])
def test_below_a_threshold_a_label_is_left_empty_and_so_are_those_below_it(thresholds, decoding):
    items = make_items(40)
    plain, cut = scores_of(items, decoding=decoding), scores_of(items, decoding=decoding, thresholds=thresholds)
    genre_wanted, theme_wanted = thresholds * 2 if len(thresholds) == 1 else thresholds
    for k in range(40):
        has_genre = plain["genre_probability"][k] >= genre_wanted
        has_theme = has_genre and plain["theme_probability"][k] >= theme_wanted
        assert cut["genre"][k] == (plain["genre"][k] if has_genre else None)
        assert cut["theme"][k] == (plain["theme"][k] if has_theme else None)
        assert cut["path"][k] == plain["path"][k][: has_genre + has_theme]
    if decoding == "legal" and thresholds == (0.4, 0.25):
        assert {len(path) for path in cut["path"]} == {0, 1, 2}


def test_thresholds_leave_probabilities_and_best_paths_as_they_are():
    plain, cut = scores_of(make_items(20)), scores_of(make_items(20), thresholds=(0.9,))
    assert plain["path"] != cut["path"]
    for column in ("genre_probability", "theme_probability", "path_probability", "best_paths"):
        assert plain[column] == cut[column]


def test_a_probability_at_its_threshold_is_enough():
    scores = scores_of(make_items(1))
    at = scores_of(make_items(1), thresholds=(float(scores["genre_probability"][0]), 1.0))
    assert at["path"] == [scores["path"][0][:1]]


def test_thresholds_for_other_levels_are_refused():
    with pytest.raises(SettingsError, match="3 values for the 2 levels of the model"):
        scores_of(make_items(1), thresholds=(0.1, 0.2, 0.3))
    with pytest.raises(SettingsError, match=r"scoring\.thresholds: 2 values for 3 levels"):
        make_settings({"scoring": {"thresholds": "0.5, 0.5"}})
    assert make_settings({"scoring": {"thresholds": "0.5"}}).scoring.thresholds == (0.5,)


# --- inner representations


def test_the_output_of_layers_stands_beside_the_scores():
    items = make_items(20)
    features = MODEL.transform.transform(items)
    expected = MODEL.network["state_1"](Inputs(features.tag_index, features.features))
    scores = scores_of(items, embeddings=("state_1", "hidden"), batch_size=16)
    assert list(scores)[-3:] == ["embedding_state_1", "embedding_hidden", "model"]
    assert np.array(scores["embedding_state_1"]) == pytest.approx(expected, abs=1e-6)
    plain = scores_of(items, batch_size=16)
    assert {name: scores[name] for name in plain} == plain


def test_a_layer_that_the_network_does_not_have_is_told_before_anything_is_written(tmp_path):
    publish_stages(tmp_path, make_items(5))
    with pytest.raises(ModelError, match="layer 'hiden' is not one of tags, features, hidden"):
        score_into(tmp_path, "scores", embeddings=("hiden",))
    assert not list((tmp_path / "scores").iterdir())


def test_embeddings_are_lists_in_parquet_and_a_matrix_in_hdf5(tmp_path):
    publish_stages(tmp_path, make_items(20))
    folder = score_into(tmp_path, "scores", embeddings=("hidden",), thresholds=(0.3,), batch_size=16)
    column = pq.read_table(folder / "scores.parquet")["embedding_hidden"]
    assert column.type == pa.list_(pa.float32())
    with h5py.File(folder / "scores.h5") as file:
        assert (file["embedding_hidden"].shape, file["embedding_hidden"].dtype) == ((20, 8), np.float32)
        assert file["embedding_hidden"][:].tolist() == column.to_pylist()


# --- a catalog


def test_a_catalog_is_scored_into_files(tmp_path):
    publish_stages(tmp_path, make_items(50))
    folder = score_into(tmp_path, "scores", batch_size=16, part_items=20)
    table = pq.read_table(folder / "scores.parquet")
    assert table.column_names == COLUMNS
    assert table.num_rows == 50
    assert table.to_pydict() == scores_of(make_items(50), batch_size=16)
    assert pq.read_schema(folder / "scores.parquet" / "part-00000.parquet").metadata[b"model"] == b"f00d"
    assert len(list((folder / "scores.parquet").iterdir())) == 3
    assert (folder / "rejects.parquet").read_bytes() == (tmp_path / "clean" / "rejects.parquet").read_bytes()


@pytest.mark.parametrize("decoding", ["legal", "raw"])
def test_parquet_and_hdf5_hold_equal_values(tmp_path, decoding):
    publish_stages(tmp_path, make_items(50))
    folder = score_into(tmp_path, "scores", batch_size=16, decoding=decoding)
    table = pq.read_table(folder / "scores.parquet").to_pydict()
    with h5py.File(folder / "scores.h5") as file:
        assert set(file) == {*COLUMNS, "names"}
        names = file["names"].asstr()[:]
        for column in (
            "item_id",
            "n_tags",
            "n_unseen_tags",
            "no_known_tags",
            "path_probability",
            "best_path_probabilities",
        ):
            assert file[column][:].tolist() == table[column]
        for level in ("genre", "theme"):
            assert names[file[level][:]].tolist() == [label or "" for label in table[level]]
            assert file[f"{level}_probability"][:].tolist() == table[f"{level}_probability"]
        assert file["title"].asstr()[:].tolist() == [title or "" for title in table["title"]]
        assert names[file["model"][:]].tolist() == table["model"]
        for column in ("path", "given_path"):
            rows = [[names[code] for code in row if code] for row in file[column][:]]
            assert rows == [path or [] for path in table[column]]
        best = [[[names[code] for code in path if code] for path in row] for row in file["best_paths"][:]]
        assert best == table["best_paths"]


def test_the_same_catalog_gives_the_same_bytes(tmp_path):
    publish_stages(tmp_path, make_items(50))
    first, second = (contents(score_into(tmp_path, name, batch_size=16)) for name in ("one", "two"))
    assert first == second


def test_the_summary_counts_and_shows_unlabelled_items_with_tags_first(tmp_path):
    items = make_items(50)
    publish_stages(tmp_path, items, n_rejects=3)
    summary = json.loads((score_into(tmp_path, "scores", batch_size=16) / "summary.json").read_text("utf-8"))
    n_tags = items["tags"].value_lengths().to_numpy()
    assert (summary["n_items"], summary["n_rejected"]) == (50, 3)
    assert summary["n_without_tags"] == int((n_tags == 0).sum())
    # Every third item has no labels; ids count from 1.
    unlabelled = [k + 1 for k in range(50) if k % 3 == 2 and n_tags[k]]
    assert [example["item_id"] for example in summary["examples"]] == unlabelled[:5]
    assert set(summary["examples"][0]) == {"item_id", "title", "path", "path_probability", "n_tags"}


def test_where_all_is_labelled_the_first_items_are_shown(tmp_path):
    columns = make_items(7).to_pydict() | {"genre": ["Drama"] * 7, "tags": [["war"]] * 7, "tag_counts": [[1]] * 7}
    publish_stages(tmp_path, pa.RecordBatch.from_pydict(columns))
    summary = json.loads((score_into(tmp_path, "scores") / "summary.json").read_text("utf-8"))
    assert [example["item_id"] for example in summary["examples"]] == [1, 2, 3, 4, 5]


def test_an_empty_catalog_gives_empty_files(tmp_path):
    publish_stages(tmp_path, make_items(0), n_rejects=0)
    folder = score_into(tmp_path, "scores")
    assert pq.read_table(folder / "scores.parquet").num_rows == 0
    assert json.loads((folder / "summary.json").read_text())["n_rejected"] == 0


def test_progress_counts_items(tmp_path):
    class Counted(Progress):
        seen: list = []  # noqa: RUF012 - one test, one list

        def update(self, done, total=None, **facts):
            self.seen.append((done, total))

    publish_stages(tmp_path, make_items(20))
    score_into(tmp_path, "scores", batch_size=8, shard_items=8, progress=Counted())
    assert Counted.seen == [(8, 20), (16, 20), (20, 20)]


def test_row_groups_of_the_items_do_not_matter(tmp_path):
    for name, size in (("a", 7), ("b", 50)):
        publish_stages(tmp_path / name, make_items(50))
        files.remove(tmp_path / name / "clean")

        def write(folder, size=size):
            pq.write_table(pa.Table.from_batches([make_items(50)]), folder / "items.parquet", row_group_size=size)
            pq.write_table(pa.table({"scope": ["tag"]}), folder / "rejects.parquet")

        artifacts.publish(tmp_path / name / "clean", write, work=tmp_path / name / "w3", facts={})
    one, two = (score_into(tmp_path / name, "scores", batch_size=16) for name in ("a", "b"))
    assert contents(one) == contents(two)


def test_probabilities_are_float32_and_so_are_the_datasets(tmp_path):
    publish_stages(tmp_path, make_items(3))
    with h5py.File(score_into(tmp_path, "scores") / "scores.h5") as file:
        assert file["genre_probability"].dtype == np.float32
        assert file["item_id"].dtype == np.int64
        assert file["genre_probability"].compression == "gzip"
