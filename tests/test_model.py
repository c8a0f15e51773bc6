"""The model file: what is saved comes back, what is damaged or crafted is told, and nothing heavy is imported."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_model import TAXONOMY, features, make_items, make_model

from pipeline import container, parameters
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


def craft(saved, path, change):
    """Change a model file within HDF5, and give it the checksum that it then needs."""
    shutil.copyfile(saved, path)
    with h5py.File(path, "r+") as file:
        change(file)
    with path.open("r+b") as stream:
        stream.write(container._header(container.VERSION, *container._digest(path)))
    return path


def with_json(name, edit):
    def change(file):
        value = json.loads(file[name][:].tobytes())
        del file[name]
        container.write_json(file, name, edit(value))

    return change


def with_bytes(name, data):
    def change(file):
        del file[name]
        file.create_dataset(name, data=np.frombuffer(data, dtype=np.uint8))

    return change


def with_parameter(name, **dataset):
    def change(file):
        del file[f"parameters/{name}"]
        if dataset:
            file.create_dataset(f"parameters/{name}", **dataset)

    return change


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
    assert lines[:2] == ["TAGLADDER MODEL", "format 1"]
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
    path.write_bytes(saved.read_bytes().replace(b"format 1", b"format 2", 1))
    with pytest.raises(ModelError, match="format 2, this version reads up to 1; install a newer version"):
        load_model(path)


def test_every_random_mutation_is_noticed_before_hdf5_opens_the_file(saved, tmp_path, monkeypatch):
    content = saved.read_bytes()
    monkeypatch.setattr(h5py, "File", None)  # to call it would be a TypeError
    rng = np.random.default_rng(11)
    path = tmp_path / "model.h5"
    for _ in range(1000):
        damaged = bytearray(content)
        place = int(rng.integers(600 if rng.random() < 0.3 else len(content)))
        kind = rng.integers(4)
        if kind == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del damaged[place:]
        elif kind == 2:
            damaged[place:place] = rng.bytes(int(rng.integers(1, 9)))
        else:
            noise = rng.bytes(int(rng.integers(4, 64)))
            damaged[place : place + len(noise)] = noise
        path.write_bytes(damaged)
        with pytest.raises(ModelError):
            load_model(path)


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


def test_no_planted_pickle_runs(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    bomb = pickle.dumps(Bomb())
    for name in ("network", "taxonomy", "clean", "calibration", "provenance", "transform/vocabulary/terms/bytes"):
        path = craft(saved, tmp_path / "model.h5", with_bytes(name, bomb))
        with pytest.raises(ModelError):
            load_model(path)
    path = craft(saved, tmp_path / "model.h5", with_parameter("hidden.bias", data=np.void(bomb)))
    with pytest.raises(ModelError):
        load_model(path)
    assert not (tmp_path / "ran").exists()


# --- from the shell, and what is imported


SCORE_WITH_FEW_LIBRARIES = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import pipeline
from pipeline import scoring
pipeline.load_model({path!r}).predict([["zombies", "farmhouse"]])
found = {name.split(".")[0] for name, m in sys.modules.items() if "-packages" in str(getattr(m, "__file__", ""))}
print(*sorted(found - {"pydantic_core", "typing_extensions", "typing_inspection", "annotated_types", "pipeline"}))
"""


def test_scoring_needs_five_libraries(saved):
    # pyarrow imports pandas, dateutil and cloudpickle where they are installed: so here they are not, nor is anything
    # of weight.
    blocked = [
        "cloudpickle",
        "pandas",
        "dateutil",
        "duckdb",
        "luigi",
        "theano",
        "pytensor",
        "threadpoolctl",
        "filelock",
        "rich",
        "sklearn",
    ]
    code = SCORE_WITH_FEW_LIBRARIES.replace("{blocked}", str(blocked)).replace("{path!r}", repr(str(saved)))
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stderr == ""
    found = [name for name in done.stdout.split() if not name.startswith(("_", "cython"))]
    assert set(found) == {"numpy", "scipy", "h5py", "pyarrow", "pydantic"}


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
