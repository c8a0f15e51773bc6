"""The whole of training, step by step, against a float64 loop over arrays that knows no graph and no touched rows."""

import dataclasses

import numpy as np
import pytest
from by_hand import ByHand, complex_gradients
from graphs import every_engine

from pipeline import parameters
from pipeline.batches import Loader
from pipeline.config_learning import TrainingSettings
from pipeline.examples import Examples
from pipeline.graph import compile_step
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig
from pipeline.objective import make_objective
from pipeline.ops import symbolic

CONFIG = NetworkConfig(n_vocabulary=9, n_features=6, n_dense=2, hidden=4, n_classes=(2, 3))


def examples():
    """Return 20 items: some without tags, some with a repeated one, some without features or labels."""
    rng = np.random.default_rng(3)
    tags = rng.integers(0, 9, (20, 4))
    tags[:3] = [[0, 0, 0, 0], [5, 0, 5, 0], [0, 0, 0, 8]]
    features = rng.random((20, 6)) * (rng.random((20, 6)) < 0.4)
    labels = np.stack([rng.integers(0, 2, 20), rng.integers(-1, 3, 20)], axis=1)
    return Examples.of(tags, labels, features=features, dense=rng.random((20, 2)))


def settings(**changes):
    quick = {"compile_mode": "fast_compile", "batch_size": 6, "learning_rate": 0.02, "weight_decay": 0.1}
    return TrainingSettings(**{**quick, "clip_norm": 1.0, "dropout": 0.4, "label_smoothing": 0.1, **changes})


def batches(changed):
    return [batch for number in (1, 2) for batch in make_loader(changed).epoch(number)]


def make_loader(changed):
    return Loader(examples(), n_hidden=CONFIG.hidden, batch_size=changed.batch_size, seed=1, dropout=changed.dropout)


def network(dtype):
    """Return a network whose biases are drawn too: with zeros an item whose hidden units drop out stands on a kink."""
    rng = np.random.default_rng(2)
    drawn = parameters.cast(FeedbackNetwork.initialise(CONFIG, rng), "float64")
    values = parameters.flatten(drawn)
    moved = {name: value + 0.1 * rng.standard_normal(value.shape) for name, value in values.items() if value.ndim == 1}
    return parameters.cast(parameters.replace(drawn, moved), dtype)


def in_whole(batch):
    """Return what the network reads of a batch, in the numbers of the whole tables, in complex numbers."""
    features = np.zeros((len(batch.labels), CONFIG.n_features))
    features[:, batch.columns] = batch.features.toarray()
    masks = {name: mask.astype(float) for name, mask in batch.masks.items()}
    return Inputs(batch.rows[batch.tag_index], features, batch.dense.astype(float), masks)


def trained_by_hand(changed, objective):
    """Return the losses and the parameters of a loop over arrays."""
    net, losses = network("float64"), []
    loop = ByHand(changed.optimizer, changed.learning_rate, changed.clip_norm, changed.weight_decay)
    for batch in batches(changed):
        touched = {"tags.weight": batch.rows, "features.weight": batch.columns}
        inputs, labels = in_whole(batch), batch.labels
        loss, gradients = complex_gradients(lambda part, x=inputs, y=labels: objective(part.logits(x), y), net, touched)
        losses.append(loss)
        values = parameters.flatten(net)
        loop.step(values, gradients, touched)
        net = parameters.replace(net, values)
    return losses, parameters.flatten(net)


def trained_by_engine(engine, dtype, changed, objective):
    step = compile_step(symbolic.engine(engine), network(dtype), changed, objective=objective)
    losses = []
    for batch in batches(changed):
        exact = {"features": batch.features.astype(dtype), "dense": batch.dense.astype(dtype)}
        exact["masks"] = {name: mask.astype(dtype) for name, mask in batch.masks.items()}
        losses.append(step(dataclasses.replace(batch, **exact), changed.learning_rate)[0])
    return losses, parameters.flatten(step.network())


@every_engine
@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adagrad", "loss": "hinge", "class_weights": "balanced"}],
    ids=["adam-nll", "adagrad-weighted-hinge"],
)
@pytest.mark.parametrize("mode", ["fast_compile", pytest.param("fast_run", marks=pytest.mark.slow)])
def test_eight_steps_of_training_are_those_of_a_loop_over_arrays(engine, mode, changes):
    changed = settings(compile_mode=mode, **changes)
    objective = make_objective(changed, [np.bincount(column[column >= 0]) for column in examples().labels.T])
    expected_losses, expected = trained_by_hand(changed, objective)
    losses, found = trained_by_engine(engine, "float64", changed, objective)
    assert len(losses) == 8
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9, err_msg=name)
    losses, found = trained_by_engine(engine, "float32", changed, objective)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4, err_msg=name)
