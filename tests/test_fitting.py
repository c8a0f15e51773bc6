import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import ENGINES, every_engine

from pipeline import fitting, parameters
from pipeline.batches import Loader
from pipeline.config_learning import TrainingSettings
from pipeline.errors import FeatureError, TrainingError
from pipeline.examples import Examples
from pipeline.fitting import fit, run_epoch
from pipeline.graph import compile_step, log_probabilities
from pipeline.history import evaluate
from pipeline.network import FeedbackNetwork, NetworkConfig
from pipeline.objective import make_objective
from pipeline.ops import symbolic
from pipeline.progress import Progress

CONFIG = NetworkConfig(n_vocabulary=13, n_features=12, n_dense=0, hidden=8, n_classes=(3, 6))
TAGS = np.repeat(np.arange(6), 20)  # each item's first tag names its class of the second level


def make_examples(*, seed=1):
    """Return 120 items: the first tag tells the labels, the second is noise; some labels are unknown."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(6, 12, len(TAGS))
    labels = np.stack([TAGS // 2, TAGS], axis=1)
    labels[::10, 1] = -1
    tag_index = np.stack([noise + 1, np.zeros_like(TAGS), TAGS + 1], axis=1)
    return Examples.of(tag_index, labels, features=np.eye(12)[TAGS] + np.eye(12)[noise])


def network(*, seed=3):
    return FeedbackNetwork.initialise(CONFIG, np.random.default_rng(seed))


def quick(**changes):
    return TrainingSettings(
        **{"compile_mode": "fast_compile", "epochs": 3, "batch_size": 32, "learning_rate": 0.02, **changes}
    )


def values(result):
    return b"".join(value.tobytes() for value in parameters.flatten(result.network).values())


class Notes(Progress):
    def __init__(self):
        self.notes, self.updates = [], []

    def note(self, text):
        self.notes.append(text)

    def update(self, done, total=None, **facts):
        self.updates.append((done, total, facts))


def test_the_network_learns_what_the_tags_tell():
    result = fit(network(), make_examples(), make_examples(seed=2), quick(epochs=12))
    assert result.history[-1].validation.path_accuracy == 1
    assert result.history[-1].loss < result.history[0].loss / 2
    assert result.engine.startswith(ENGINES[0])


def test_the_given_network_stays_as_it_is_and_the_padding_row_stays_zero():
    before = network()
    result = fit(before, make_examples(), None, quick(weight_decay=0.1))
    np.testing.assert_array_equal(
        parameters.flatten(before)["cell.weight"], parameters.flatten(network())["cell.weight"]
    )
    assert result.network.tags.weight[0].tobytes() == np.zeros(8, np.float32).tobytes()
    changed = (result.network.tags.weight != before.tags.weight).any(axis=1)
    assert changed.tolist() == [False] + [True] * 12


def test_a_tag_that_no_item_has_keeps_its_first_weights():
    examples = dataclasses.replace(make_examples(), tag_index=np.minimum(make_examples().tag_index, 4))
    result = fit(network(), examples, None, quick(weight_decay=0.1))
    np.testing.assert_array_equal(result.network.tags.weight[5:], network().tags.weight[5:])


@every_engine
def test_the_same_seed_gives_the_same_bytes_with_and_without_prefetch(engine):
    settings = quick(engine=engine, epochs=2)

    def trained(**changes):
        return values(fit(network(), make_examples(), None, settings.model_copy(update=changes)))

    assert trained() == trained() == trained(prefetch=0)
    assert trained(seed=8) != trained()


@pytest.fixture(scope="module")
def plainly_trained():
    return parameters.flatten(fit(network(), make_examples(), None, quick(epochs=1)).network)


@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": 0.5},
        {"label_smoothing": 0.3},
        {"loss": "hinge"},
        {"level_weights": (1.0, 4.0)},
        {"dropout": 0.6},
        {"dropout": 0.0},
        {"tag_dropout": 0.5},
        {"tag_dropout": 0.0},
        {"clip_norm": 0.01},
        {"optimizer": "adagrad"},
        {"learning_rate": 0.04},
        {"seed": 8},
        {"batch_size": 48},
        {"schedule": "cosine"},
        {"warm_up": 1.0},
        {"feature_dropout": 0.5},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_setting_reaches_the_weights(plainly_trained, change):
    result = fit(network(), make_examples(), None, quick(epochs=1, **change))
    differences = [np.abs(value - plainly_trained[name]) for name, value in parameters.flatten(result.network).items()]
    assert max(difference.max() for difference in differences) > 1e-3  # far above rounding


def test_class_weights_reach_the_weights():
    uneven = make_examples().take(np.arange(70))  # 20, 20, 20, 10 items of the first classes of the second level
    changes = ({}, {"class_weights": "balanced"}, {"class_weights": "effective", "class_weights_beta": 0.9})
    biases = [fit(network(), uneven, None, quick(epochs=1, **change)).network.heads[1].bias for change in changes]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(biases[first] - biases[second]).max() > 1e-4


@pytest.mark.slow
@every_engine
def test_a_cold_and_a_warm_compile_cache_give_the_same_bytes(engine, tmp_path):
    code = (
        "import hashlib, test_fitting as t; "
        f"settings = t.quick(engine='{engine}', compile_mode='fast_run', epochs=10); "
        "result = t.fit(t.network(), t.make_examples(), None, settings); "
        "print(hashlib.sha256(t.values(result)).hexdigest())"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": f"{here}:{here.parent}"}
    cold, warm = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
        for _ in range(2)
    )
    assert cold == warm != ""


@every_engine
@pytest.mark.parametrize("mode", ["fast_compile", pytest.param("fast_run", marks=pytest.mark.slow)])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_numpy_and_engine_agree_after_training(engine, mode, optimizer):
    settings = quick(engine=engine, compile_mode=mode, optimizer=optimizer)
    result, examples = fit(network(), make_examples(), None, settings), make_examples(seed=5)
    expected = result.network(examples.inputs)
    found = log_probabilities(symbolic.engine(engine), result.network, examples.inputs, mode=mode)
    for ours, theirs in zip(expected, found, strict=True):
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(np.exp(ours), np.exp(theirs), rtol=0, atol=1e-5)


@pytest.mark.skipif("len(ENGINES) < 2", reason="one engine only is installed")
def test_both_engines_train_to_nearly_the_same_predictions():
    results = [fit(network(), make_examples(), None, quick(engine=engine)) for engine in ENGINES]
    first, second = (result.network[-1](make_examples().inputs) for result in results)
    # Rounding differs in the last bits of every step, and Adam divides small gradients by their own size.
    np.testing.assert_allclose(np.exp(first), np.exp(second), rtol=0, atol=1e-4)


@every_engine
def test_updating_touched_rows_is_updating_the_tables(engine, monkeypatch):
    # AdaGrad leaves a row without gradient alone, so that whole tables must come out the same.
    settings = quick(engine=engine, optimizer="adagrad", dropout=0.0)
    loader = Loader(make_examples(), n_hidden=8, batch_size=16, seed=1)
    by_rows = compile_step(symbolic.engine(engine), network(), settings)
    monkeypatch.setattr(FeedbackNetwork, "tables", {})
    whole = compile_step(symbolic.engine(engine), network(), settings)
    for batch in loader.epoch(1):
        wide = np.zeros((len(batch.labels), 12), np.float32)
        wide[:, batch.columns] = batch.features.toarray()
        wide = Examples.of(batch.rows[batch.tag_index], batch.labels, features=wide)
        as_whole = dataclasses.replace(batch, tag_index=wide.tag_index, features=wide.features.tocsc())
        np.testing.assert_allclose(by_rows(batch, 0.1), whole(as_whole, 0.1), rtol=1e-5)
    for name, value in parameters.flatten(by_rows.network()).items():
        np.testing.assert_allclose(value, parameters.flatten(whole.network())[name], atol=1e-5, err_msg=name)


def test_the_weights_of_the_best_epoch_are_kept_and_patience_ends_training():
    # Labels of validation that contradict the training part: the longer it learns, the worse they fit.
    examples = make_examples()
    shuffled = dataclasses.replace(examples, labels=np.roll(examples.labels, 40, axis=0))
    result = fit(network(), examples, shuffled, quick(epochs=12, patience=2, learning_rate=0.05))
    assert len(result.history) == result.best_epoch + 2 < 12
    assert result.history[result.best_epoch - 1].validation.loss == min(e.validation.loss for e in result.history)
    shorter = fit(network(), examples, None, quick(epochs=result.best_epoch, learning_rate=0.05))
    assert values(result) == values(shorter)


def test_the_last_weights_are_kept_on_request_and_nothing_ends_training_before():
    examples = make_examples()
    shuffled = dataclasses.replace(examples, labels=np.roll(examples.labels, 40, axis=0))
    result = fit(network(), examples, shuffled, quick(epochs=6, patience=2, learning_rate=0.05, keep="last"))
    losses = [epoch.validation.loss for epoch in result.history]
    assert len(losses) == result.best_epoch == 6
    assert losses[-1] > min(losses)
    assert values(result) == values(fit(network(), examples, None, quick(epochs=6, learning_rate=0.05)))


def test_the_mean_of_the_last_epochs_is_that_of_their_weights():
    # Without validation the last epochs count, and a shorter training is the beginning of a longer one.
    ends = [parameters.flatten(fit(network(), make_examples(), None, quick(epochs=n)).network) for n in (2, 3, 4)]
    result = fit(network(), make_examples(), None, quick(epochs=4, keep="averaged", averaged_epochs=3))
    for name, value in parameters.flatten(result.network).items():
        expected = np.mean([weights[name] for weights in ends], axis=0, dtype=np.float64).astype(np.float32)
        np.testing.assert_array_equal(value, expected, err_msg=name)
    assert result.network.tags.weight[0].tobytes() == bytes(4 * 8)


def test_validation_looks_at_the_mean_that_would_be_kept():
    settings = quick(epochs=3, keep="averaged", averaged_epochs=2)
    result = fit(network(), make_examples(), make_examples(seed=2), settings)
    assert result.best_epoch == 3
    objective = make_objective(settings)
    assert result.history[-1].validation == evaluate(result.network, make_examples(seed=2), objective)


def test_items_without_tags_are_left_out_on_request():
    examples = make_examples()
    examples.tag_index[::4] = 0
    tagged = examples.take(np.arange(120) % 4 > 0)
    with_all, without, alone = (
        fit(network(), training, training, quick(epochs=1, tagged_only=tagged_only))
        for training, tagged_only in ((examples, False), (examples, True), (tagged, False))
    )
    assert values(without) == values(alone) != values(with_all)
    assert (without.n_training, without.n_validation, with_all.n_training) == (90, 90, 120)
    assert without.history[0].validation == alone.history[0].validation
    with pytest.raises(
        TrainingError, match=r"no labelled item to train on; .* or set \[training\] tagged_only = false"
    ):
        fit(network(), examples.take(slice(0, 1)), None, quick(tagged_only=True))


def test_an_empty_validation_part_is_told_and_all_epochs_run():
    progress = Notes()
    result = fit(network(), make_examples(), make_examples().take(slice(0, 0)), quick(), progress=progress)
    assert progress.notes == ["no validation items: training runs all 3 epochs and keeps the last weights"]
    assert [epoch.number for epoch in result.history] == [1, 2, 3]
    assert result.best_epoch == 3
    assert [done for done, _, _ in progress.updates] == [1, 2, 3]
    assert progress.updates[-1][2].keys() == {"loss", "items_per_second"}


def test_a_full_compile_is_announced(monkeypatch):
    class CompiledError(Exception):
        pass

    def stop(*_, **__):
        raise CompiledError

    monkeypatch.setattr(fitting, "compile_step", stop)
    progress = Notes()
    with pytest.raises(CompiledError):
        fit(network(), make_examples(), make_examples(), TrainingSettings(), progress=progress)
    assert "first compile takes about a minute" in progress.notes[0]


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(TrainingError, match="no labelled item to train on; label some items"):
        fit(network(), make_examples().take(slice(0, 0)), None, quick())


def test_examples_that_do_not_fit_are_an_error_before_the_compile():
    small = FeedbackNetwork.initialise(dataclasses.replace(CONFIG, n_vocabulary=5), np.random.default_rng(0))
    with pytest.raises(FeatureError, match="outside the table of 5 rows"):
        fit(small, make_examples(), None, quick())
    with pytest.raises(FeatureError, match="features: 12 columns are given, the network has 0"):
        fit(FeedbackNetwork.initialise(dataclasses.replace(CONFIG, n_features=0), None), make_examples(), None, quick())
    with pytest.raises(TrainingError, match="level_weights has 3 weights for 2 levels"):
        fit(network(), make_examples(), None, quick(level_weights=(1, 1, 1)))


def test_batches_of_one_item_are_refused_with_batch_norm():
    normed = FeedbackNetwork.initialise(dataclasses.replace(CONFIG, norm="batch"), np.random.default_rng(0))
    for examples, settings in ((make_examples(), quick(batch_size=1)), (make_examples().take([0]), quick())):
        with pytest.raises(TrainingError, match="a batch of one item has no variance"):
            fit(normed, examples, None, settings)


@every_engine
def test_an_infinite_feature_stops_training_in_its_step(engine):
    examples = make_examples()
    examples.features.data[0] = np.inf
    message = r"training diverged in epoch 1, step \d+: loss nan, .*; lower \[training\] learning_rate"
    with pytest.raises(TrainingError, match=message):
        fit(network(), examples, None, quick(engine=engine))


def test_divergence_names_epoch_and_step():
    losses = iter([(1.0, 1.0), (1.0, 1.0), (float("nan"), 1.0)])
    loader = Loader(make_examples(), n_hidden=8, batch_size=32, seed=1)
    with pytest.raises(TrainingError, match=r"epoch 5, step 3: loss nan, gradient norm 1.0"):
        run_epoch(lambda batch, rate: next(losses), loader, 5, quick())
    with pytest.raises(TrainingError, match=r"step 1: loss 1.0, gradient norm inf"):
        run_epoch(lambda batch, rate: (1.0, float("inf")), loader, 5, quick())


def test_weights_that_the_last_step_made_infinite_are_an_error():
    with pytest.raises(TrainingError, match=r"epoch 1, step 1: parameter .* is not finite"):
        fit(network(), make_examples(), None, quick(epochs=1, batch_size=120, learning_rate=3e38, weight_decay=10))


def test_the_loss_of_an_epoch_is_the_mean_over_its_items():
    loader = Loader(make_examples(), n_hidden=8, batch_size=100, seed=1)
    losses = iter([(1.0, 0.0), (4.0, 0.0)])
    loss, speed, waiting = run_epoch(lambda batch, rate: next(losses), loader, 1, quick())
    assert 0 <= waiting <= 1
    assert loss == pytest.approx((100 * 1.0 + 20 * 4.0) / 120)
    assert speed > 0


def test_one_item_of_one_level_can_be_trained_on():
    config = NetworkConfig(n_vocabulary=2, n_features=0, n_dense=1, hidden=2, n_classes=(1,))
    examples = Examples.of(np.array([[1]]), np.array([[0]]), dense=np.array([[0.5]]))
    result = fit(FeedbackNetwork.initialise(config, np.random.default_rng(0)), examples, examples, quick(epochs=2))
    assert result.history[-1].validation.path_accuracy == 1
