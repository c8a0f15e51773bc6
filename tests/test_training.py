"""Stage 3 whole: from shards to parameters, history and probe."""

import csv
import json

import h5py
import numpy as np
import pytest
import shard_folders
from shard_folders import write_folder
from test_shards import LEVELS, N_ITEMS, built, row

from pipeline import batches, parameters
from pipeline.config import Settings
from pipeline.errors import FeatureError
from pipeline.export import PARITY, parity
from pipeline.history import predicted
from pipeline.network import FeedbackNetwork, NetworkConfig
from pipeline.parts import open_parts
from pipeline.progress import SILENT
from pipeline.taxonomy import Taxonomy
from pipeline.training import train

FILES = ["history.csv", "network.json", "parameters.h5", "probe.h5", "training.json"]


def settings(**training):
    quick = {"compile_mode": "fast_compile", "epochs": 3, "batch_size": 8, **training}
    return Settings(catalog={"levels": LEVELS}, network={"hidden": 5}, training=quick)


def trained(tmp_path, features_folder, name="train", progress=SILENT, **training):
    folder = tmp_path / name
    folder.mkdir()
    train(settings(**training), features_folder, folder, progress=progress)
    return folder


@pytest.fixture(scope="module")
def features_folder(tmp_path_factory):
    return built(tmp_path_factory.mktemp("stages"), "features", [row(number) for number in range(N_ITEMS)])


def column(folder, name):
    with (folder / "history.csv").open(newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def network_of(folder):
    config = NetworkConfig.from_json(json.loads((folder / "network.json").read_text()))
    return FeedbackNetwork.load(config, parameters.load(folder / "parameters.h5"))


def test_the_stage_leaves_its_five_files(tmp_path, features_folder):
    folder = trained(tmp_path, features_folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    facts = json.loads((folder / "training.json").read_text())
    data = shard_folders.read(features_folder)
    assert (facts["n_training_items"], facts["n_validation_items"]) == (len(data.train), len(data.validation))
    assert facts["n_parameters"] == parameters.count(network_of(folder))
    assert 1 <= facts["best_epoch"] <= facts["n_epochs"] == 3
    assert facts["engine"].split()[0] in ("theano", "pytensor")
    assert facts["seconds"] >= facts["compile_seconds"] > 0


def test_the_network_has_the_sizes_of_features_and_taxonomy(tmp_path, features_folder):
    widths = shard_folders.read(features_folder).widths
    config = network_of(trained(tmp_path, features_folder)).config
    assert (config.n_vocabulary, config.n_features, config.n_dense) == (widths.n_vocabulary, widths.n_features, 0)
    assert config.n_classes == widths.n_classes == (2, 2)
    assert config.hidden == 5


def test_history_has_a_row_an_epoch_and_a_column_a_level(tmp_path, features_folder):
    with (trained(tmp_path, features_folder) / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    measured = ["loss", "genre_loss", "genre_accuracy", "theme_loss", "theme_accuracy", "path_accuracy"]
    assert list(rows[0])[2:14] == [f"{part}_{name}" for part in ("validation", "training") for name in measured]
    for epoch in rows:
        assert all(0 <= float(epoch[f"{part}_genre_accuracy"]) <= 1 for part in ("validation", "training"))
        levels = float(epoch["validation_genre_loss"]) + float(epoch["validation_theme_loss"])
        assert float(epoch["validation_loss"]) == pytest.approx(levels, rel=1e-5)


def test_the_probe_holds_what_the_engine_computes_and_numpy_agrees(tmp_path, features_folder):
    folder = trained(tmp_path, features_folder)
    assert parity(network_of(folder), folder / "probe.h5") < PARITY
    with h5py.File(folder / "probe.h5") as file:
        assert set(file) == {
            "tag_index",
            "features",
            "dense",
            "log_probabilities_0",
            "log_probabilities_1",
        }
        np.testing.assert_array_equal(file["tag_index"][:], shard_folders.read(features_folder).train.tag_index[:64])


def test_the_same_seed_gives_the_same_bytes_of_parameters(tmp_path, features_folder):
    first, second, other = (
        (trained(tmp_path, features_folder, name, seed=seed) / "parameters.h5").read_bytes()
        for name, seed in (("first", 7), ("second", 7), ("other", 8))
    )
    assert first == second != other


@pytest.mark.parametrize("tagged_only", [False, True])
def test_neither_the_size_of_a_shard_nor_that_of_memory_changes_a_weight(tmp_path, monkeypatch, tagged_only):
    # 83 training items in windows of 32: read from shards of 7, of 40, and all in one.
    monkeypatch.setattr(batches, "BLOCK", 8)
    monkeypatch.setattr(batches, "WINDOW", 32)
    first, second, third = (
        trained(tmp_path, write_folder(tmp_path / f"{n}", 103, shard_items=n), f"t{n}", tagged_only=tagged_only)
        for n in (7, 40, 1000)
    )
    weights = (first / "parameters.h5").read_bytes()
    assert weights == (second / "parameters.h5").read_bytes() == (third / "parameters.h5").read_bytes()
    for name in ("validation_loss", "validation_path_accuracy", "training_path_accuracy"):
        assert column(first, name) == column(second, name) == column(third, name)
    monkeypatch.setattr(batches, "WINDOW", 200)
    assert weights != (trained(tmp_path, tmp_path / "7", "held") / "parameters.h5").read_bytes()


def test_the_accuracies_of_history_are_those_of_legal_paths(tmp_path, features_folder):
    folder, taxonomy = tmp_path / "legal", features_folder.with_name("features-clean") / "taxonomy.json"
    folder.mkdir()
    train(settings(), features_folder, folder, taxonomy=taxonomy, progress=SILENT)
    ladder = Taxonomy.from_json(taxonomy.read_text())
    network, held_out = network_of(folder), open_parts(features_folder).validation
    examples = held_out.read(0, len(held_out))
    best = json.loads((folder / "training.json").read_text())["best_epoch"]
    classes = predicted(network.logits(examples.inputs), ladder)
    whole = (examples.labels >= 0).all(axis=1)
    right = (classes == examples.labels).all(axis=1)
    assert float(column(folder, "validation_path_accuracy")[best - 1]) == pytest.approx(
        right.sum() / whole.sum(), abs=1e-6
    )
    assert (ladder.parents[1][classes[:, 1]] == classes[:, 0]).all()


def test_a_catalog_without_validation_items_trains_all_epochs(tmp_path):
    class Notes(type(SILENT)):
        notes = ()

        def note(self, text):
            self.notes += (text,)

    rows = [{**row(number), "split": "train"} for number in range(6)]
    progress = Notes()
    folder = trained(tmp_path, built(tmp_path, "few", rows), progress=progress, patience=1)
    assert "no validation items" in progress.notes[0]
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["validation_loss"] for row in rows] == ["", "", ""]
    assert json.loads((folder / "training.json").read_text())["best_epoch"] == 3


def test_a_folder_without_shards_is_an_error(tmp_path):
    with pytest.raises(FeatureError, match=r"no features-00000.h5; run stage 2"):
        trained(tmp_path, tmp_path)
