import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
from test_network import make_network

from pipeline import history
from pipeline.examples import Examples
from pipeline.history import Epoch, Evaluation, best_epoch, evaluate, should_stop, write_history
from pipeline.objective import Objective
from pipeline.taxonomy import Taxonomy


def epochs(*losses):
    return [Epoch(n, 1.0, Evaluation(loss, (0.5,), 0.25), 100.0, 0.1) for n, loss in enumerate(losses, start=1)]


def make_examples():
    rng = np.random.default_rng(1)
    labels = np.array([[0, 1, 2], [1, -1, -1], [0, 2, -1], [1, 0, 0], [-1, -1, -1]])
    features, dense = rng.random((5, 5)), rng.standard_normal((5, 2))
    return Examples.of(rng.integers(0, 6, (5, 3)), labels, features=features, dense=dense)


def test_an_evaluation_counts_known_labels_and_whole_paths():
    examples, network = make_examples(), make_network()
    guesses = np.stack([level.argmax(axis=1) for level in network(examples.inputs)], axis=1)
    right, known = guesses == examples.labels, examples.labels >= 0
    found = evaluate(network, examples, Objective(label_smoothing=0.1))
    assert found.accuracy == pytest.approx(tuple(right.sum(axis=0) / known.sum(axis=0)))
    assert found.path_accuracy == right.all(axis=1).sum() / 2
    expected = Objective(label_smoothing=0.1)(network.logits(examples.inputs), examples.labels)
    assert found.loss == pytest.approx(expected, rel=1e-6)


def test_accuracies_are_those_of_the_best_legal_path():
    class Fixed:
        """Level 1 leans to Drama (0), level 2 strongly to Zombies (1), which stand under Horror (1)."""

        config = SimpleNamespace(n_classes=(2, 2))

        def logits(self, inputs):
            n = len(inputs.tag_index)
            return np.tile(np.float32([1, 0]), (n, 1)), np.tile(np.float32([0, 3]), (n, 1))

    ladder = Taxonomy.of(("genre", "theme"), [("Drama", "War"), ("Horror", "Zombies")])
    examples = Examples.of(np.ones((3, 1)), np.array([[1, 1], [0, 1], [1, -1]]))
    legal = evaluate(Fixed(), examples, Objective(), taxonomy=ladder)
    raw = evaluate(Fixed(), examples, Objective())
    assert (legal.accuracy, legal.path_accuracy) == ((2 / 3, 1.0), 0.5)  # always Horror > Zombies
    assert (raw.accuracy, raw.path_accuracy) == ((1 / 3, 1.0), 0.5)  # always Drama, Zombies: a path that is none
    assert legal.loss == raw.loss


def test_an_evaluation_in_chunks_is_that_of_the_whole(monkeypatch):
    whole = evaluate(make_network(), make_examples(), Objective())
    monkeypatch.setattr(history, "CHUNK", 2)
    parts = evaluate(make_network(), make_examples(), Objective())
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert (parts.accuracy, parts.path_accuracy) == (whole.accuracy, whole.path_accuracy)


def test_a_level_without_known_labels_has_no_accuracy():
    examples = make_examples().take(slice(1, 2))
    found = evaluate(make_network(), examples, Objective())
    assert not math.isnan(found.accuracy[0])
    assert math.isnan(found.accuracy[1])
    assert math.isnan(found.path_accuracy)


def test_the_best_epoch_is_the_first_of_the_lowest_validation_loss():
    assert best_epoch(epochs(3.0, 1.0, 2.0, 1.0)) == 2


def test_without_validation_the_last_epoch_is_the_best_and_nothing_stops():
    unvalidated = [Epoch(n, 1.0, None, 1.0, 1.0) for n in (1, 2, 3)]
    assert best_epoch(unvalidated) == 3
    assert not should_stop(unvalidated, patience=1)


def test_training_stops_after_patience_epochs_without_a_better_one():
    assert not should_stop(epochs(3.0, 1.0, 2.0), patience=2)
    assert should_stop(epochs(3.0, 1.0, 2.0, 2.0), patience=2)


def test_history_is_a_table_with_a_column_a_level(tmp_path):
    rows = [
        *epochs(2.0),
        Epoch(2, 0.5, Evaluation(1.5, (math.nan,), math.nan), 100.0, 0.1),
        Epoch(3, 0.4, None, 9.0, 1.0, waiting=0.25, training=Evaluation(3.0, (0.5,), 0.25, (2.5,))),
    ]
    write_history(tmp_path / "history.csv", rows, ["genre"])
    with (tmp_path / "history.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    measured = ["loss", "genre_loss", "genre_accuracy", "path_accuracy"]
    names = [f"{part}_{name}" for part in ("validation", "training") for name in measured]
    assert list(table[0]) == ["epoch", "loss", *names, "items_per_second", "waiting", "seconds"]
    nothing = ["", "", "", ""]
    assert list(table[0].values()) == ["1", "1", "2", "", "0.5", "0.25", *nothing, "100", "0", "0.1"]
    assert list(table[1].values()) == ["2", "0.5", "1.5", "", "", "", *nothing, "100", "0", "0.1"]
    assert list(table[2].values()) == ["3", "0.4", *nothing, "3", "2.5", "0.5", "0.25", "9", "0.25", "1"]
