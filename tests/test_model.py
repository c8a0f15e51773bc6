"""The model file: what is saved comes back, what is damaged or crafted is told, and nothing heavy is imported."""

import h5py
import numpy as np
import pytest
from crafted_model import craft, with_bytes, with_json, with_parameter
from small_model import TAXONOMY, features, make_items, make_model

from pipeline import parameters
from pipeline.__main__ import main
from pipeline.calibration import Calibration
from pipeline.errors import ModelError
from pipeline.model import Model, load_model
from pipeline.network_config import parents_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    make_model().save(path)
    return path


# --- saved and loaded


def test_what_is_saved_comes_back(saved):
    model, loaded = make_model(), load_model(saved)
    assert loaded.taxonomy == model.taxonomy
    assert loaded.calibration == model.calibration
    assert loaded.clean == model.clean
    assert loaded.provenance == {"fingerprint": "f00d"}
    for name, value in parameters.flatten(model.network).items():
        assert np.array_equal(parameters.flatten(loaded.network)[name], value), name
    items = make_items(20)
    assert loaded.score_batch(items, clean=False).equals(model.score_batch(items, clean=False))


def test_the_same_model_gives_the_same_bytes(saved, tmp_path):
    digest = make_model().save(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == saved.read_bytes()
    assert digest == load_model(saved).sha256


def test_the_header_can_be_read_by_people(saved):
    lines = saved.read_bytes()[:512].rstrip(b"\0").decode().splitlines()
    assert lines[:2] == ["TAGLADDER MODEL", "format 2"]
    assert lines[2] == f"sha256 {load_model(saved).sha256}"
    assert lines[3] == f"bytes {saved.stat().st_size - 512}"


def test_a_model_without_provenance_is_called_by_its_digest(tmp_path):
    digest = make_model(provenance={}).save(tmp_path / "model.h5")
    assert load_model(tmp_path / "model.h5").fingerprint == digest


def test_a_network_that_does_not_fit_the_features_is_refused():
    wide, narrow = make_model(settings=features(hash_width=128)), make_model()
    with pytest.raises(ModelError, match="export the model again"):
        Model(wide.network, narrow.transform, TAXONOMY, Calibration.none(2), narrow.clean)


# --- predictions


def test_raw_tags_are_cleaned_as_in_training(saved):
    model = load_model(saved)
    clean, raw = model.predict([["farmhouse", "zombies"], ["  ZOMBIES", "Farmhouse!"]])
    assert clean == raw
    assert clean.n_tags == 2
    assert clean.n_unseen_tags == 0


def test_a_prediction_is_a_legal_path_with_probabilities(saved):
    prediction = load_model(saved).predict([["zombies"]], n_best=2)[0]
    legal = {tuple(TAXONOMY.path_names(path)) for path in range(len(TAXONOMY.paths))}
    assert set(prediction.best_paths) <= legal
    assert prediction.path == prediction.best_paths[0]
    assert len(prediction.best_path_probabilities) == 2
    assert prediction.level_probabilities["genre"] >= prediction.level_probabilities["theme"]
    assert prediction.level_probabilities["theme"] == pytest.approx(prediction.path_probability)


def test_all_paths_together_are_certain(saved):
    prediction = load_model(saved).predict([["war"]], n_best=100)[0]
    assert len(prediction.best_paths) == len(TAXONOMY.paths)
    assert sum(prediction.best_path_probabilities) == pytest.approx(1, abs=1e-6)


def test_an_item_without_tags_gets_what_the_model_expects_and_a_flag(saved):
    without, unseen = load_model(saved).predict([[], ["never heard of it"]])
    assert (without.n_tags, without.n_unseen_tags) == (0, 0)
    assert (unseen.n_tags, unseen.n_unseen_tags) == (1, 1)
    assert 0 < without.path_probability < 1


def test_no_rows_give_no_predictions(saved):
    assert load_model(saved).predict([]) == []


def test_a_row_does_not_depend_on_its_neighbours(saved):
    model = load_model(saved)
    rows = [["zombies", "ghost"], [], ["war"], ["satire", "laughs"]]
    assert model.predict(rows) == [model.predict([row])[0] for row in rows]


@pytest.mark.parametrize("rows", ["zombies", ["zombies", "war"]])
def test_a_string_in_place_of_a_row_is_refused(saved, rows):
    with pytest.raises(ModelError, match="rows of tags"):
        load_model(saved).predict(rows)


def test_a_model_that_reads_texts_predicts_from_tags_alone(tmp_path):
    make_model(settings=features(text=("plot",), blocks=("tags", "text_words"))).save(tmp_path / "model.h5")
    assert load_model(tmp_path / "model.h5").predict([["zombies"]])[0].n_tags == 1


WHOLE = {"wide": True, "label_feedback": True, "parent_mask": True, "parents": parents_of(TAXONOMY.parents)}


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "single_shot", "norm": "none"},
        {**WHOLE, "norm": "batch", "experts": 4, "experts_at": "outputs"},
        {**WHOLE, "experts": 3},
    ],
    ids=["single shot", "heads of experts", "hidden layers of experts"],
)
def test_a_network_of_any_parts_is_saved_loaded_and_scores_the_same(tmp_path, network):
    model = make_model(**network)
    model.save(tmp_path / "model.h5")
    loaded = load_model(tmp_path / "model.h5")
    assert loaded.network.config == model.network.config
    assert loaded.network.names == model.network.names
    assert loaded.score_batch(make_items(20), clean=False) == model.score_batch(make_items(20), clean=False)


# --- files that are not a good model


def test_an_absent_file_a_folder_and_a_foreign_file_are_told(tmp_path):
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "foreign.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))
    for name, what in (("absent.h5", "no such file"), (".", "no such file"), ("empty.h5", "does not begin")):
        with pytest.raises(ModelError, match=what):
            load_model(tmp_path / name)
    with pytest.raises(ModelError, match=r"foreign\.h5: does not begin as a model file does; give the path"):
        load_model(tmp_path / "foreign.h5")


def test_a_later_format_asks_for_a_newer_version(saved, tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(saved.read_bytes().replace(b"format 2", b"format 3", 1))
    with pytest.raises(ModelError, match="format 3, this version reads up to 2; install a newer version"):
        load_model(path)


def as_version_1(file):
    """Take out what files of version 1 did not have, and make strings of what were strings in them."""
    for name in ("members", "catalog", "storage"):
        if name in file:
            del file[name]

    def with_strings(_, node):
        if "facts" in node.attrs:
            facts = bytes(node.attrs["facts"]).decode()
            del node.attrs["facts"]
            node.attrs["facts"] = facts

    file.visititems(with_strings)


def test_a_file_of_version_1_is_read_as_what_it_was(saved, tmp_path):
    old = load_model(craft(saved, tmp_path / "model.h5", as_version_1, version=1))
    assert (old.storage, old.catalog) == ("float32", {})
    assert old.predict([["zombies", "war"]]) == load_model(saved).predict([["zombies", "war"]])


def test_what_version_1_lacked_a_file_of_version_2_must_have(saved, tmp_path):
    with pytest.raises(ModelError, match="take it again from the stage 'export'"):
        load_model(craft(saved, tmp_path / "model.h5", as_version_1))


def test_a_format_from_before_the_first_says_what_to_do(saved, tmp_path):
    with pytest.raises(ModelError, match="format 0, this version reads from 1 on; train the model again"):
        load_model(craft(saved, tmp_path / "model.h5", lambda file: None, version=0))


CRAFTED = {
    "no network": lambda file: file.__delitem__("network"),
    "no transform": lambda file: file.__delitem__("transform"),
    "no parameters": lambda file: file.__delitem__("parameters"),
    "a parameter is missing": with_parameter("hidden.bias"),
    "a parameter too many": lambda file: file["parameters"].create_dataset("more", data=np.zeros(1, np.float32)),
    "a parameter of another shape": with_parameter("hidden.bias", data=np.zeros(3, np.float32)),
    "a parameter of another type": with_parameter("hidden.bias", data=np.zeros(8, np.int64)),
    "a parameter of text": with_parameter("hidden.bias", data=["x"] * 8),
    "8 TB in chunks": with_parameter("tags.weight", shape=(10**12, 8), dtype="f4", chunks=(1024, 8)),
    "8 TB never written": with_parameter("tags.weight", shape=(10**12, 8), dtype="f4"),
    "compressed zeros": with_parameter("tags.weight", data=np.zeros((10**6, 8), np.float32), compression="gzip"),
    "a huge vocabulary": with_json("network", lambda value: {**value, "n_vocabulary": 10**12}),
    "a vocabulary of words": with_json("network", lambda value: {**value, "n_vocabulary": "many"}),
    "a hidden layer of -1": with_json("network", lambda value: {**value, "hidden": -1}),
    "half a unit": with_json("network", lambda value: {**value, "hidden": 8.5}),
    "many levels": with_json("network", lambda value: {**value, "n_classes": [1] * 10_000}),
    "an experts' gate without experts": with_json("network", lambda value: {**value, "experts": 4}),
    "a wide path that is not stored": with_json("network", lambda value: {**value, "wide": True}),
    "sizes beyond any memory": with_json(
        "network", lambda value: {**value, "wide": True, "n_features": 2**31 - 1, "n_classes": [2**31 - 1] * 9}
    ),
    "more experts than there may be": with_json("network", lambda value: {**value, "experts": 10**9}),
    "a mask without parents": with_json("network", lambda value: {**value, "parent_mask": True}),
    "parents of another taxonomy": with_json(
        "network", lambda value: {**value, "parent_mask": True, "parents": [[0] * TAXONOMY.n_classes[1]]}
    ),
    "a norm of tomorrow": with_json("network", lambda value: {**value, "norm": "group"}),
    "a network that is a list": with_json("network", lambda value: [value]),
    "a network of other fields": with_json("network", lambda value: {"layers": 3}),
    "another taxonomy": with_json("taxonomy", lambda value: value.replace("Ghosts", "Zombies")),
    "a taxonomy of numbers": with_json("taxonomy", lambda value: 5),
    "a calibration of nothing": with_json("calibration", lambda value: {"legal": [0, 0], "raw": [1, 1]}),
    "clean settings of tomorrow": with_json("clean", lambda value: {**value, "stem": True}),
    "provenance of words": with_json("provenance", lambda value: "trust me"),
    "a catalog of words": with_json("catalog", lambda value: "items"),
    "a storage of tomorrow": with_json("storage", lambda value: "float8"),
    "a storage that it does not have": with_json("storage", lambda value: "float16"),
    "more members than groups": with_json("members", lambda value: 10**9),
    "deep JSON": with_bytes("provenance", b"[" * 100_000 + b"]" * 100_000),
    "JSON that is not UTF-8": with_bytes("provenance", b'{"a": "\xff"}'),
    "a link within": lambda file: file.__setitem__("more", h5py.SoftLink("/network")),
    "a link to a file": lambda file: file.__setitem__("more", h5py.ExternalLink("/etc/passwd", "/")),
    "a loop": lambda file: file["transform"].__setitem__("loop", file["/"]),
    "data in a file": lambda file: file.create_dataset("more", (9,), "u1", external=[("/etc/passwd", 0, 9)]),
    "a virtual dataset": lambda file: file.create_virtual_dataset("more", h5py.VirtualLayout((9,), "u1")),
}


@pytest.mark.parametrize("change", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_file_with_a_right_checksum_is_told(saved, tmp_path, change):
    path = craft(saved, tmp_path / "model.h5", change)
    with pytest.raises(ModelError, match=r"model\.h5: .*take it again from the stage 'export'"):
        load_model(path)


OF_ALL_VERSIONS = ("no transform", "a parameter of text", "8 TB never written", "compressed zeros", "deep JSON")
OF_ALL_VERSIONS += ("a link to a file", "a loop", "data in a file", "a virtual dataset", "a huge vocabulary")


@pytest.mark.parametrize("change", OF_ALL_VERSIONS)
def test_a_crafted_file_of_version_1_is_told_as_well(saved, tmp_path, change):
    def as_old(file):
        CRAFTED[change](file)
        as_version_1(file)

    path = craft(saved, tmp_path / "model.h5", as_old, version=1)
    with pytest.raises(ModelError, match=r"model\.h5: .*take it again from the stage 'export'"):
        load_model(path)


# --- from the shell


def test_the_shell_prints_paths_with_bars(saved, capsys):
    assert main(["predict", "zombies", "Farmhouse", "--model", str(saved), "--best", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "%" in lines[0]
    assert "█" in lines[0]


def test_the_shell_says_which_tags_are_unknown(saved, capsys):
    main(["predict", "never heard of it", "--model", str(saved)])
    assert capsys.readouterr().out.splitlines()[-1] == "(1 of 1 tags are unknown to the model)"


def test_the_shell_tells_an_absent_model(tmp_path, capsys):
    assert main(["predict", "zombies", "--model", str(tmp_path / "absent.h5")]) == 1
    assert "there is no such file" in capsys.readouterr().err


def test_the_shell_refuses_no_paths(saved, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "zombies", "--model", str(saved), "--best", "0"])
    assert "1 to 100" in capsys.readouterr().err
