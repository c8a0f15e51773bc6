"""The whole of training, step by step, against a float64 loop over arrays that knows no graph and no touched rows."""

import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import shard_folders
from by_hand import ByHand, complex_gradients
from graphs import ENGINES, every_engine

from pipeline import parameters
from pipeline.batches import Loader
from pipeline.cleaning import clean
from pipeline.config import Settings
from pipeline.config_learning import TrainingSettings
from pipeline.digests import sha256_of
from pipeline.examples import Examples
from pipeline.features import build
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
        losses.append(step(in_dtype(batch, dtype), changed.learning_rate)[0])
    return losses, parameters.flatten(step.network())


def in_dtype(batch, dtype):
    dense = None if batch.dense is None else batch.dense.astype(dtype)
    masks = {name: mask.astype(dtype) for name, mask in batch.masks.items()}
    return dataclasses.replace(batch, features=batch.features.astype(dtype), dense=dense, masks=masks)


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


PRODUCTS = {
    "catalog": {
        "item_id": "ID",
        "title": "Name",
        "text": ("Name",),
        "tags_column": "CategoryText",
        "tag_separators": ">|/,;",
        "levels": ("lvl1", "lvl2", "lvl3"),
    },
    "features": {"blocks": ("text_words:Name", "tags")},
}


@pytest.fixture(scope="module")
def real_items(tmp_path_factory):
    """Labelled items and their widths: products where the real data sets are at hand, else the embedded films."""
    folder, products = tmp_path_factory.mktemp("real"), os.environ.get("TAGLADDER_DATA")
    changed = {}
    if products:
        lines = (Path(products) / "products" / "train.json").read_text("utf-8").splitlines(keepends=True)
        (folder / "items.json").write_text("".join(lines[:1200]), "utf-8")
        changed = {**PRODUCTS, "catalog": {**PRODUCTS["catalog"], "items": str(folder / "items.json")}}
    sections = Settings(**changed)
    expected = {sections.catalog.items: sha256_of(sections.catalog.items)}
    clean(sections, folder, expected=expected, role="training")
    build(sections, folder, folder)
    data = shard_folders.read(folder)
    items = data.train
    return Examples.of(items.tag_index, items.labels, features=items.features, dense=items.dense), data.widths


def thirty_steps(engine, dtype, items, widths, **changes):
    """Return the probabilities of all items after 30 steps, on arrays, and the losses of the steps."""
    changed = settings(batch_size=32, dropout=0.3, clip_norm=5.0, **changes)
    config = NetworkConfig(widths.n_vocabulary, widths.n_features, widths.n_dense, 16, widths.n_classes)
    drawn = parameters.cast(FeedbackNetwork.initialise(config, np.random.default_rng(2)), dtype)
    step = compile_step(symbolic.engine(engine), drawn, changed)
    loader, losses = Loader(items, n_hidden=16, batch_size=32, seed=1, dropout=0.3), []
    for number in range(30):
        batch = next(itertools.islice(loader.epoch(1 + number // len(loader)), number % len(loader), None))
        losses.append(step(in_dtype(batch, dtype), changed.learning_rate)[0])
    return [np.exp(level) for level in step.network()(items.inputs)], losses


@every_engine
@pytest.mark.parametrize(("loss", "optimizer"), [("nll", "adam"), ("hinge", "adagrad")])
def test_after_thirty_steps_on_real_items_the_probabilities_are_those_of_float64(engine, loss, optimizer, real_items):
    found, losses = thirty_steps(engine, "float32", *real_items, loss=loss, optimizer=optimizer)
    exact, exact_losses = thirty_steps(engine, "float64", *real_items, loss=loss, optimizer=optimizer)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, exact_losses, rtol=1e-5)
    for level, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(level, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(len(ENGINES) < 2, reason="one engine only is installed")
def test_both_engines_in_one_process_train_to_the_same_probabilities_on_real_items(real_items):
    first, second = (thirty_steps(engine, "float32", *real_items) for engine in ENGINES)
    np.testing.assert_allclose(first[1], second[1], rtol=1e-5)
    for ours, theirs in zip(first[0], second[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
