"""Stage 4: the model file is made only if NumPy agrees with the engine, and evaluation.json is right by hand."""

import itertools
import json
from collections import Counter

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shard_folders
from scipy import optimize

from pipeline import artifacts, evaluation, features, parameters, parts, shards
from pipeline.calibration import Calibration, cool
from pipeline.class_weights import class_counts
from pipeline.config import Settings
from pipeline.decoding import decode
from pipeline.errors import ModelError
from pipeline.evaluation import evaluate
from pipeline.examples import Examples
from pipeline.export import ANY, export
from pipeline.hdf5 import write_array
from pipeline.model import load_model
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig
from pipeline.progress import SILENT
from pipeline.score_catalog import score
from pipeline.taxonomy import Taxonomy

LEVELS = ("genre", "theme")
SETTINGS = Settings(catalog={"levels": LEVELS}, features={"hash_width": 64})
LABELS = [("Horror", "Zombies"), ("Horror", "Ghosts"), ("Drama", "War"), ("Drama", "Zombies"), ("Comedy", "-")]
TAGS = [["undead"], ["haunted", "house"], ["mud", "trenches"], ["metaphor"], ["house", "laughs"]]
COUNTS = [[2], [1, 5], [3, 1], [1], [4, 1]]


def write_clean(folder, *, splits, labels, untagged=None):
    """Write 60 items; the labels of a part, where it has its own, come in turn; the part `untagged` has no tags."""
    rows = range(60)
    parts = [splits[k % len(splits)] for k in rows]
    turns = {part: itertools.cycle(labels.get(part, ())) for part in set(parts)}
    given = [next(turns[part]) if part in labels else LABELS[k % 5] for k, part in enumerate(parts)]
    columns = {
        "item_id": pa.array(rows),
        "tags": pa.array([[] if parts[k] == untagged else TAGS[k % 5] for k in rows], pa.list_(pa.string())),
        "tag_counts": pa.array([[] if parts[k] == untagged else COUNTS[k % 5] for k in rows], pa.list_(pa.int32())),
        "split": pa.array(parts),
        "genre": pa.array([genre for genre, _ in given]),
        "theme": pa.array([theme for _, theme in given]),
    }
    pq.write_table(pa.table(columns), folder / "items.parquet")
    pq.write_table(pa.table({"scope": pa.array([], pa.string())}), folder / "rejects.parquet")
    taxonomy = Taxonomy.learn(LEVELS, [columns[level] for level in LEVELS], "-")
    (folder / "taxonomy.json").write_text(taxonomy.to_json(), "utf-8")
    (folder / "tag_lists.json").write_text('{"aliases": {}, "labels": [], "stops": []}', "utf-8")


def write_train(folder, features_folder, *, error=0.0, bias=0.0):
    """Leave behind what stage 3 does, from drawn weights; the engine's probe is off by `error`.

    `bias` is that of the first class of the top level.
    """
    data = shard_folders.read(features_folder)
    widths = data.widths
    config = NetworkConfig(widths.n_vocabulary, widths.n_features, widths.n_dense, 8, tuple(widths.n_classes))
    network = FeedbackNetwork.initialise(config, np.random.default_rng(1))
    network.heads[0].bias[0] = bias
    parameters.save(folder / "parameters.h5", network)
    (folder / "network.json").write_text(json.dumps(config.to_json()))
    probe = data.train.features[:10]
    with h5py.File(folder / "probe.h5", "w") as file:
        write_array(file, "tag_index", data.train.tag_index[:10])
        shards.write_sparse(file.create_group("features"), probe.tocsc())
        write_array(file, "dense", data.train.dense[:10])
        for level, values in enumerate(network(Inputs(data.train.tag_index[:10], probe))):
            write_array(file, f"log_probabilities_{level}", np.log(np.exp(values) + np.float32(error)))


def publish(root, stage, write):
    artifacts.publish(root / stage, write, work=root / f"work-{stage}", facts={})


def make_stages(
    root,
    *,
    splits=("train", "train", "train", "validation", "test", "train", "train"),
    labels=None,
    untagged=None,
    error=0.0,
    bias=0.0,
):
    publish(root, "clean", lambda folder: write_clean(folder, splits=splits, labels=labels or {}, untagged=untagged))
    publish(root, "features", lambda folder: features.build(SETTINGS, root / "clean", folder))
    publish(root, "train", lambda folder: write_train(folder, root / "features", error=error, bias=bias))
    return root


def run_export(root, name="export", settings=SETTINGS, **options):
    (root / name).mkdir()
    folders = (root / "clean", root / "features", [root / "train"])
    export(settings, *folders, root / name, provenance={"fingerprint": "abc"}, **options)
    return root / name


def test_the_model_file_predicts_what_the_network_does(tmp_path):
    model = load_model(run_export(make_stages(tmp_path)) / "model.h5")
    assert model.fingerprint == "abc"
    data = shard_folders.read(tmp_path / "features")
    found = model.network(Inputs(data.test.tag_index, data.test.features))
    trained = parameters.load(tmp_path / "train" / "parameters.h5")
    expected = FeedbackNetwork.load(model.network.config, trained)(Inputs(data.test.tag_index, data.test.features))
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_network_that_computes_something_else_is_not_exported(tmp_path):
    make_stages(tmp_path, error=1e-4)
    with pytest.raises(ModelError, match=r"probe\.h5: NumPy's probabilities differ from the engine's by 0\.0001"):
        run_export(tmp_path)
    assert not list((tmp_path / "export").iterdir())


def test_a_difference_of_rounding_is_accepted(tmp_path):
    folder = run_export(make_stages(tmp_path, error=1e-6))
    assert json.loads((folder / "evaluation.json").read_text())["parity"] == pytest.approx(1e-6, abs=5e-7)


def test_a_probe_that_is_no_number_is_not_exported(tmp_path):
    make_stages(tmp_path, error=np.nan)
    with pytest.raises(ModelError, match="differ from the engine's by nan"):
        run_export(tmp_path, limit=ANY)


def test_what_is_left_to_the_gate_is_exported_with_its_difference(tmp_path):
    folder = run_export(make_stages(tmp_path, error=1e-4), limit=ANY)
    assert json.loads((folder / "evaluation.json").read_text())["parity"] == pytest.approx(1e-4, rel=0.1)


@pytest.mark.parametrize(
    ("splits", "part"),
    [
        (("train", "train", "validation", "test"), "test"),
        (("train", "train", "validation"), "validation"),
        (("train",), None),
    ],
)
def test_the_evaluation_says_which_part_it_is_of(tmp_path, splits, part):
    folder = run_export(make_stages(tmp_path, splits=splits))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["part"] == part
    assert evaluation["n_items"] == (60 // len(splits) if part else 0)
    assert (evaluation["path"]["accuracy"] is None) == (part is None)
    if part is None:
        assert evaluation["temperatures"] == {"legal": [1.0, 1.0], "raw": [1.0, 1.0]}


def test_the_temperatures_of_the_validation_part_are_in_the_model(tmp_path):
    folder = run_export(make_stages(tmp_path))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert load_model(folder / "model.h5").calibration.to_json() == evaluation["temperatures"]
    assert evaluation["temperatures"]["legal"] != [1.0, 1.0]


def test_items_without_tags_do_not_calibrate_a_network_of_tagged_items(tmp_path):
    make_stages(tmp_path, untagged="validation", bias=1.0)
    tagged_only = SETTINGS.model_copy(update={"training": SETTINGS.training.model_copy(update={"tagged_only": True})})
    for name, settings in (("all", SETTINGS), ("tagged", tagged_only)):
        run_export(tmp_path, name, settings)
    temperatures = {
        name: json.loads((tmp_path / name / "evaluation.json").read_text())["temperatures"]["legal"]
        for name in ("all", "tagged")
    }
    assert temperatures["all"] != [1.0, 1.0]
    assert temperatures["tagged"] == [1.0, 1.0]  # nothing is left to fit them on


# Each part of 20 items has labels of its own. Those of the validation part agree with the drawn network more often
# than not, so that the best temperatures lie within their bounds.
UNDEAD, GHOSTS = ("Horror", "Zombies"), ("Horror", "Ghosts")
COMEDY, TRENCHES, METAPHOR = ("Comedy", "-"), ("Drama", "War"), ("Drama", "Zombies")
PARTS = {
    "train": [TRENCHES, TRENCHES, METAPHOR, GHOSTS],
    "validation": [
        *(METAPHOR, GHOSTS, TRENCHES, COMEDY, UNDEAD, GHOSTS, GHOSTS, GHOSTS, UNDEAD, UNDEAD),
        *(GHOSTS, COMEDY, UNDEAD, COMEDY, UNDEAD, METAPHOR, UNDEAD, GHOSTS, GHOSTS, GHOSTS),
    ],
    "test": [COMEDY, COMEDY, UNDEAD, COMEDY, TRENCHES],
}


def items_of_part(clean, part):
    """Return the items of a part as stage 1 left them, one dict each."""
    return [item for item in pq.read_table(clean / "items.parquet").to_pylist() if item["split"] == part]


def best_temperatures(model, items):
    """Return the temperatures that make the items' own labels likeliest, legal and raw, by a search without gradient.

    The logits are those of the items' tags as scoring reads them; the paths are gone through one by one.
    """
    features = model.transform.transform(pa.Table.from_pylist(items))
    logits = [level.astype(float) for level in model.network.logits(Inputs(features.tag_index, features.features))]
    classes = [{path: k for k, path in enumerate(level)} for level in model.taxonomy.classes]
    paths = [(classes[0][path[:1]], k) for path, k in classes[1].items()]
    labels = [(classes[0][(item["genre"],)], classes[1][item["genre"], item["theme"]]) for item in items]

    def loss_of_paths(temperatures):
        loss = 0.0
        for row, label in enumerate(labels):
            score = {path: sum(logits[k][row, path[k]] / temperatures[k] for k in (0, 1)) for path in paths}
            loss += np.log(sum(np.exp(value) for value in score.values())) - score[label]
        return loss

    def loss_of_head(temperature, k):
        scaled = logits[k] / temperature
        given = [scaled[row, label[k]] for row, label in enumerate(labels)]
        return np.log(np.exp(scaled).sum(axis=1)).sum() - sum(given)

    bounds = (0.05, 20)
    legal = optimize.minimize(
        loss_of_paths, (1, 1), method="Nelder-Mead", bounds=[bounds] * 2, options={"xatol": 1e-6, "fatol": 1e-10}
    )
    raw = [optimize.minimize_scalar(loss_of_head, bounds=bounds, args=(k,), method="bounded").x for k in (0, 1)]
    return {"legal": legal.x.tolist(), "raw": raw}


def test_each_part_serves_its_own_purpose(tmp_path):
    folder = run_export(make_stages(tmp_path, splits=("train", "validation", "test"), labels=PARTS))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    parts = {part: items_of_part(tmp_path / "clean", part) for part in PARTS}
    assert {part: Counter(item["genre"] for item in items) for part, items in parts.items()} == {
        "train": {"Drama": 15, "Horror": 5},
        "validation": {"Horror": 14, "Drama": 3, "Comedy": 3},
        "test": {"Comedy": 12, "Horror": 4, "Drama": 4},
    }
    # The temperatures are the best of the validation part, each label at its own item.
    expected = best_temperatures(load_model(folder / "model.h5"), parts["validation"])
    for kind in ("legal", "raw"):
        assert evaluation["temperatures"][kind] == pytest.approx(expected[kind], rel=1e-3)
        assert all(0.1 < temperature < 10 for temperature in expected[kind])
    # The class that is most frequent in the training part, and how often it is right in the test part.
    genre, theme = evaluation["levels"]
    assert (genre["majority_class"], genre["majority_accuracy"]) == (["Drama"], pytest.approx(4 / 20))
    assert (theme["majority_class"], theme["majority_accuracy"]) == (["Drama", "War"], pytest.approx(4 / 20))


def test_scoring_the_clean_items_gives_what_the_shards_give(tmp_path):
    """Tags, their counts and their order come to the network in two ways: through stage 2 and in stage 5."""
    folder = run_export(make_stages(tmp_path), "unpublished")
    publish(tmp_path, "export", lambda build: (folder / "model.h5").rename(build / "model.h5"))
    (tmp_path / "scores").mkdir()
    score(
        SETTINGS, tmp_path / "export" / "model.h5", tmp_path / "clean", tmp_path / "scores", run="r1", progress=SILENT
    )
    rows = {row["item_id"]: row for row in pq.read_table(tmp_path / "scores" / "scores.parquet").to_pylist()}
    model, data = load_model(tmp_path / "export" / "model.h5"), shard_folders.read(tmp_path / "features")
    logits = model.network.logits(Inputs(data.test.tag_index, data.test.features))
    decoded = decode(cool(logits, model.calibration.legal), model.taxonomy, n_best=1)
    item_ids = pa.chunked_array(list(shards.read_item_ids(tmp_path / "features"))).to_pylist()
    scored = [rows[item_id] for item_id in item_ids[-len(data.test) :]]
    assert len(scored) == 8
    assert [row["path"] for row in scored] == [model.taxonomy.path_names(path) for path in decoded.path[:, 0]]
    assert [row["path_probability"] for row in scored] == pytest.approx(decoded.path_probability[:, 0], rel=1e-5)


def test_exporting_twice_gives_the_same_bytes(tmp_path):
    make_stages(tmp_path)
    first, second = run_export(tmp_path, "one"), run_export(tmp_path, "two")
    for name in ("model.h5", "evaluation.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_no_more_than_a_chunk_of_the_items_is_in_memory(tmp_path, monkeypatch):
    asked = []
    read = parts.Part.items
    monkeypatch.setattr(parts.Part, "items", lambda part, *rows: asked.append(rows) or read(part, *rows))
    monkeypatch.setattr(evaluation, "CHUNK", 3)
    folder = run_export(make_stages(tmp_path))
    # 9 items of the validation part for the temperatures, 8 of the test part for the figures.
    assert asked == [(0, 3), (3, 6), (6, 9), (0, 3), (3, 6), (6, 8)]
    assert json.loads((folder / "evaluation.json").read_text())["n_items"] == 8


# --- the figures, by hand

LADDER = Taxonomy.of(LEVELS, [("Drama", "War"), ("Drama", "Love"), ("Horror", "Zombies")])
LOVE, WAR, ZOMBIES = range(3)


class Fixed:
    """A network that gives the logits of the item whose number is its tag."""

    def __init__(self, *levels):
        self.levels = [np.log(np.array(level)) for level in levels]

    def logits(self, inputs):
        return [level[inputs.tag_index[:, 0]] for level in self.levels]


def items_of(labels):
    labels = np.array(labels, np.int32).reshape(-1, 2)
    return Examples.of(np.arange(len(labels))[:, None], labels)


def counts_of(labels):
    return class_counts(np.array(labels), LADDER.n_classes)


def test_the_figures_by_hand():
    # Paths of item 0: Love .5*.4, War .5*.1, Zombies .5*.5 -> of .5: .4, .1, .5; the best is Zombies, Drama has .5.
    # Paths of item 1: Love .8*.5, War .8*.25, Zombies .2*.25 -> of .65: 8/13, 4/13, 1/13; the best is Love.
    network = Fixed([[0.5, 0.5], [0.8, 0.2]], [[0.4, 0.1, 0.5], [0.5, 0.25, 0.25]])
    items = items_of([[0, WAR], [0, -1]])
    figures = evaluate(
        network,
        items,
        LADDER,
        calibration=Calibration.none(2),
        class_counts=counts_of([[0, WAR], [1, ZOMBIES], [1, -1]]),
    )
    genre, theme = figures["levels"]
    assert (genre["n_items"], theme["n_items"], figures["path"]["n_items"]) == (2, 1, 1)
    assert (genre["accuracy"], theme["accuracy"], figures["path"]["accuracy"]) == (0.5, 0.0, 0.0)
    assert (genre["majority_class"], genre["majority_accuracy"]) == (["Horror"], 0.0)
    assert (theme["majority_class"], theme["majority_accuracy"]) == (["Drama", "War"], 1.0)
    assert genre["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(12 / 13)) / 2)
    assert theme["log_loss"] == pytest.approx(-np.log(0.1))
    assert figures["path"]["log_loss"] == theme["log_loss"]
    # Confidences: genre .5 (wrong) and 12/13 (right), in bins of their own; theme .5 (wrong).
    assert genre["calibration_error"] == pytest.approx((0.5 + 1 / 13) / 2)
    assert theme["calibration_error"] == pytest.approx(0.5)
    # Genre 0 is given twice and predicted once, rightly: 2/3; genre 1 is predicted once, wrongly: 0.
    assert genre["macro_f1"] == pytest.approx(1 / 3)
    assert genre["weighted_f1"] == pytest.approx(2 / 3)
    # Brier: genre (.5, .5) given the first, (12/13, 1/13) given the first; theme and path (.4, .1, .5) given .1.
    assert genre["brier"] == pytest.approx((0.5 + 2 / 13**2) / 2)
    assert theme["brier"] == figures["path"]["brier"] == pytest.approx(0.16 + 0.81 + 0.25)
    # Horror > Zombies for Drama > War: none of two; Drama for Drama: one of one. Two up and two down, and none.
    assert figures["hierarchy"] == {"n_items": 2, "precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3, "lca_distance": 2}
    # The heads say Drama and Horror > Zombies of item 0 (of equals the lower), Drama and Drama > Love of item 1.
    assert figures["raw_heads"] == {"n_items": 2, "consistency": 0.5}


def test_figures_stand_before_and_after_calibration():
    network = Fixed([[0.9, 0.1]], [[0.9, 0.05, 0.05]])
    warm = Calibration(legal=(2.0, 2.0), raw=(1.0, 1.0))
    figures = evaluate(network, items_of([[0, WAR]]), LADDER, calibration=warm, class_counts=counts_of([[0, WAR]]))
    assert figures["path"]["log_loss_before"] == pytest.approx(-np.log(0.045 / (0.81 + 0.045 + 0.005)))
    weights = np.sqrt([0.81, 0.045, 0.005])
    assert figures["path"]["log_loss"] == pytest.approx(-np.log(weights[1] / weights.sum()))
    for name, paths in (("brier_before", np.array([0.81, 0.045, 0.005])), ("brier", weights)):
        assert figures["path"][name] == pytest.approx(((paths / paths.sum() - [0, 1, 0]) ** 2).sum())


def test_items_of_no_known_theme_leave_its_figures_open():
    network = Fixed([[0.9, 0.1]], [[0.9, 0.05, 0.05]])
    figures = evaluate(
        network, items_of([[0, -1]]), LADDER, calibration=Calibration.none(2), class_counts=counts_of([[0, -1]])
    )
    theme = figures["levels"][1]
    for name in ("accuracy", "majority_accuracy", "majority_class", "macro_f1", "log_loss", "calibration_error"):
        assert theme[name] is None
