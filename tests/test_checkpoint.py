"""A training that was interrupted goes on to the same bytes."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import every_engine
from shard_folders import write_folder
from test_fitting import CONFIG, Notes, make_examples, network, quick, values

from pipeline import fitting, parameters
from pipeline.config import Settings
from pipeline.errors import TrainingError
from pipeline.fitting import fit
from pipeline.history import Evaluation
from pipeline.network import FeedbackNetwork
from pipeline.training import train


class StoppedError(Exception):
    pass


class StopAfter(Notes):
    """Ends training when epoch `number` has been told, as a kill at that moment would."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def update(self, done, total=None, **facts):
        super().update(done, total, **facts)
        if done == self.number:
            raise StoppedError


def trained(settings, path=None, *, progress=None, validation=None, first=None):
    validation = make_examples(seed=2) if validation is None else validation
    first = network() if first is None else first
    return fit(first, make_examples(), validation, settings, checkpoint=path, progress=progress or Notes())


def facts(result):
    """Return what does not depend on the clock."""
    return [(epoch.number, epoch.loss, epoch.validation) for epoch in result.history], result.best_epoch


@every_engine
@pytest.mark.parametrize("change", [{}, {"optimizer": "adagrad", "keep": "averaged", "averaged_epochs": 3}], ids=str)
def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, engine, change):
    settings = quick(engine=engine, epochs=4, schedule="cosine", tag_dropout=0.2, feature_dropout=0.2, **change)
    undisturbed = trained(settings)
    path, notes = tmp_path / "checkpoint.h5", Notes()
    with pytest.raises(StoppedError):
        trained(settings, path, progress=StopAfter(2))
    resumed = trained(settings, path, progress=notes)
    assert notes.notes == [f"goes on after epoch 2, from {path}"]
    assert [done for done, _, _ in notes.updates] == [3, 4]
    assert values(resumed) == values(undisturbed)
    assert facts(resumed) == facts(undisturbed)


@every_engine
def test_running_statistics_experts_and_the_wide_path_go_on_too(tmp_path, engine):
    parts = {"norm": "batch", "wide": True, "label_feedback": True, "experts": 3, "experts_at": "outputs"}
    first = FeedbackNetwork.initialise(dataclasses.replace(CONFIG, **parts), np.random.default_rng(1))
    settings = quick(engine=engine, epochs=2, keep="averaged", averaged_epochs=2, weight_decay=0.1)
    path = tmp_path / "checkpoint.h5"
    with pytest.raises(StoppedError):
        trained(settings, path, first=first, progress=StopAfter(1))
    resumed, undisturbed = (trained(settings, place, first=first) for place in (path, None))
    assert "hidden.norm.mean" in parameters.flatten(resumed.network)
    assert values(resumed) == values(undisturbed)


def test_early_stopping_remembers_the_best_weights_over_a_stop(tmp_path):
    # Labels of validation that contradict the training part: the first epochs are the best.
    examples = make_examples()
    contrary = type(examples)(examples.tag_index, examples.features, None, np.roll(examples.labels, 40, axis=0))
    settings = quick(epochs=12, patience=2, learning_rate=0.05, keep="averaged", averaged_epochs=2)
    undisturbed = trained(settings, validation=contrary)
    n_epochs = len(undisturbed.history)
    assert undisturbed.best_epoch == n_epochs - 2
    path = tmp_path / "checkpoint.h5"
    for number in (n_epochs - 1, n_epochs):  # Between the best epoch and the end, and at the very end.
        with pytest.raises(StoppedError):
            trained(settings, path, validation=contrary, progress=StopAfter(number))
    resumed = trained(settings, path, validation=contrary)
    assert values(resumed) == values(undisturbed)
    assert facts(resumed) == facts(undisturbed)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_file_is_told_and_the_one_before_it_is_used_and_then_none(tmp_path):
    path, before, notes = tmp_path / "checkpoint.h5", tmp_path / "before-checkpoint.h5", Notes()
    undisturbed = trained(quick(epochs=3), path)
    flip(path)
    assert values(trained(quick(epochs=3), path, progress=notes)) == values(undisturbed)
    assert notes.notes == [f"{path} is damaged and is not used", f"goes on after epoch 2, from {before}"]
    flip(path)
    before.write_bytes(b"half a file")
    assert values(trained(quick(epochs=3), path, progress=notes)) == values(undisturbed)
    assert notes.notes[-1] == f"{before} is damaged and is not used: training starts from its first epoch"


def test_a_file_of_another_training_is_told_and_training_starts_afresh(tmp_path):
    path = tmp_path / "checkpoint.h5"
    trained(quick(epochs=1), path)
    for settings, first in (
        (quick(epochs=1, learning_rate=0.03), network()),
        (quick(epochs=1), network(seed=4)),
    ):
        notes = Notes()
        result = trained(settings, path, progress=notes, first=first)
        assert "belongs to other settings, items or versions and is not used" in notes.notes[0]
        assert values(result) == values(trained(settings, first=first))
    notes = Notes()
    elsewhere = {"prefetch": 0, "members": 3, "refresh": "7 days", "warm_start": "moved.h5"}
    trained(quick(epochs=1, **elsewhere), path, first=network(seed=4), progress=notes)
    assert notes.notes == [f"goes on after epoch 1, from {path}"]


def test_an_epoch_that_diverged_leaves_no_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.h5"
    wild = quick(epochs=3, batch_size=120, learning_rate=3e38, weight_decay=10)
    with pytest.raises(TrainingError, match="diverged in epoch 1"):
        trained(wild, path)
    assert not path.exists()


def test_a_validation_loss_that_is_no_number_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.h5"
    seen = iter([1.0, 1.0, float("nan")])  # of validation and of training items, and of the next epoch's validation
    monkeypatch.setattr(fitting, "evaluate", lambda *_, **__: Evaluation(next(seen), (0.5, 0.5), 0.5))
    with pytest.raises(TrainingError, match="epoch 2, step 4: validation loss nan"):
        trained(quick(), path)
    monkeypatch.undo()
    notes = Notes()
    trained(quick(), path, progress=notes)
    assert notes.notes == [f"goes on after epoch 1, from {path}"]


KILLED = """
import sys
from pathlib import Path
from pipeline.progress import Progress
from pipeline.training import train
from test_checkpoint import stage_settings

class Told(Progress):
    def update(self, done, total=None, **facts):
        print(done, flush=True)

features, folder, work, engine, mode = sys.argv[1:]
Path(folder).mkdir()
train(stage_settings(engine, mode), Path(features), Path(folder), work=Path(work), progress=Told())
"""


def stage_settings(engine, mode):
    training = {"engine": engine, "compile_mode": mode, "epochs": 6, "batch_size": 16, "keep": "averaged"}
    return Settings(catalog={"levels": ("genre", "theme")}, network={"hidden": 7}, training=training)


@every_engine
@pytest.mark.parametrize("mode", ["fast_compile", pytest.param("fast_run", marks=pytest.mark.slow)])
def test_a_killed_process_is_gone_on_from_to_the_same_bytes(tmp_path, engine, mode):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parent}"}
    features = write_folder(tmp_path / "features", 300, shard_items=50)
    killed, work = tmp_path / "killed", tmp_path / "work"
    command = [sys.executable, "-c", KILLED, *map(str, (features, killed, work)), engine, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line == "2\n":
                process.kill()
    assert process.returncode == -signal.SIGKILL
    assert list(killed.iterdir()) == []
    notes, weights = Notes(), []
    for name, place in (("resumed", work), ("undisturbed", None)):
        folder = tmp_path / name
        folder.mkdir()
        train(stage_settings(engine, mode), features, folder, work=place, progress=notes)
        weights.append((folder / "parameters.h5").read_bytes())
    assert any(note.startswith("goes on after epoch ") for note in notes.notes)
    assert weights[0] == weights[1]
