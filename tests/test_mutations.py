"""Damage and malice: whatever a model file holds, it loads or is a ModelError, soon, and nothing in it runs."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from crafted_model import craft
from small_model import features, make_model
from test_model import as_version_1

from pipeline.errors import ModelError, PipelineError
from pipeline.model import load_model
from pipeline.probe import is_readable

SHORT = pytest.param(1000, id="1000")
LONG = pytest.param(10_000, id="10000", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    make_model(settings=features(text=("plot",), blocks=("tags", "tag_words", "tag_chars", "text_words"))).save(path)
    return path


def mutate(content, rng):
    """Return bytes of which one bit is flipped, the end is cut, some are added, or some are noise; of others, too."""
    damaged = bytearray(content)
    place = int(rng.integers(min(600, len(content)) if rng.random() < 0.3 else len(content)))
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
    return bytes(damaged)


@pytest.mark.parametrize("n_mutations", [SHORT, LONG])
def test_every_random_mutation_is_noticed_before_hdf5_opens_the_file(saved, tmp_path, monkeypatch, n_mutations):
    content = saved.read_bytes()
    monkeypatch.setattr(h5py, "File", None)  # to call it would be a TypeError
    rng = np.random.default_rng(11)
    path = tmp_path / "model.h5"
    for _ in range(n_mutations):
        damaged = mutate(content, rng)
        if damaged == content:  # noise that happened to be what was there
            continue
        path.write_bytes(damaged)
        with pytest.raises(ModelError):
            load_model(path)


def datasets_of(path):
    found = []
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None)
    return found


def groups_with_facts(path):
    found = []
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.append(name) if "facts" in node.attrs else None)
    return found


def with_mutation(name, rng):
    """Return a change of the values of one dataset: within its type and shape, or with another length."""

    def change(file):
        values = file[name][()]
        damaged = mutate(values.tobytes(), rng) if values.nbytes else rng.bytes(8)
        kept = len(damaged) // values.dtype.itemsize * values.dtype.itemsize
        changed = np.frombuffer(damaged[:kept], values.dtype)
        del file[name]
        file.create_dataset(name, data=changed.reshape(values.shape) if changed.size == values.size else changed)

    return change


@pytest.mark.parametrize("n_mutations", [pytest.param(300, id="300"), LONG])
def test_a_mutation_with_a_right_checksum_loads_or_is_told(saved, tmp_path, n_mutations):
    rng = np.random.default_rng(5)
    names = datasets_of(saved)
    outcomes = {"told": 0, "loaded": 0}
    for number in range(n_mutations):
        path = craft(saved, tmp_path / "model.h5", with_mutation(names[number % len(names)], rng))
        try:
            model = load_model(path)
        except ModelError:
            outcomes["told"] += 1
            continue
        outcomes["loaded"] += 1
        with np.errstate(all="ignore"):
            try:
                model.predict([["zombies", "farmhouse", "ghost story"], []])
            except PipelineError:  # a weight that is no number, for instance
                continue
    assert min(outcomes.values()) > n_mutations // 20, outcomes


RAW = """
import sys
from pathlib import Path
import numpy as np
from pipeline import container
from pipeline.errors import ModelError
from pipeline.model import load_model
from test_mutations import mutate

saved, path, rng = Path(sys.argv[1]).read_bytes()[container.HEADER :], Path(sys.argv[2]), np.random.default_rng(3)
for _ in range(int(sys.argv[3])):
    path.write_bytes(bytes(container.HEADER) + mutate(saved, rng))
    with path.open("r+b") as stream:
        stream.write(container._header(container.VERSION, *container._digest(path)))
    try:
        load_model(path)
    except ModelError:
        pass
"""


@pytest.mark.parametrize("n_mutations", [pytest.param(150, id="150"), LONG])
def test_bytes_of_hdf5_that_changed_under_a_right_checksum_load_or_are_told(saved, tmp_path, n_mutations):
    """In a process of its own: it is libhdf5 that might crash or hang."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, "-c", RAW, str(saved), str(tmp_path / "model.h5"), str(n_mutations)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60 + n_mutations // 5)
    assert (done.returncode, done.stderr) == (0, "")


HEAP = """
import sys
from pathlib import Path
import numpy as np
from pipeline import container
from pipeline.errors import ModelError
from pipeline.model import load_model

saved, path, rng = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), np.random.default_rng(4)
heap, outcomes = saved.index(b"GCOL"), []
for place in range(heap, heap + 40, 4):
    damaged = bytearray(saved)
    damaged[place : place + 4] = rng.bytes(4)
    path.write_bytes(damaged)
    with path.open("r+b") as stream:
        stream.write(container._header(1, *container._digest(path)))
    try:
        load_model(path)
        outcomes.append("loaded")
    except ModelError as error:
        outcomes.append("told")
        assert "take it again from the stage 'export'" in str(error), error
print(*outcomes)
"""


def test_a_damaged_heap_of_strings_under_a_right_checksum_is_told(saved, tmp_path):
    """Format 1 has strings in attributes, whose damage can make libhdf5 hang: a child process looks first."""
    old = craft(saved, tmp_path / "old.h5", as_version_1, version=1)
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", HEAP, str(old), str(tmp_path / "model.h5")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split().count("told") >= 5
    assert is_readable(old)
    assert not is_readable(old, max_seconds=0.001)  # as one that makes libhdf5 hang


def test_no_planted_pickle_runs(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    bomb = pickle.dumps(Bomb())
    stored = np.frombuffer(bomb, np.uint8)

    def planted(name, data):
        def change(file):
            del file[name]
            file.create_dataset(name, data=data)

        return craft(saved, tmp_path / "model.h5", change)

    for name in datasets_of(saved):
        for data in (stored, np.void(bomb)):
            with pytest.raises(ModelError):
                load_model(planted(name, data))
    for group in groups_with_facts(saved):
        path = craft(saved, tmp_path / "model.h5", lambda file, at=group: file[at].attrs.update(facts=np.void(bomb)))
        with pytest.raises(ModelError):
            load_model(path)
    (tmp_path / "pickle.h5").write_bytes(bomb)
    with pytest.raises(ModelError):
        load_model(tmp_path / "pickle.h5")
    assert groups_with_facts(saved)
    assert not (tmp_path / "ran").exists()
