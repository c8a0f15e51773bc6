import numpy as np
import pytest

from pipeline.history import Epoch, Evaluation
from pipeline.keeping import Kept, mean


def after(losses, *, window=1, last=False):
    """Return what is kept when the weights are 1, 2, 3 ... at the ends of epochs with these validation losses."""
    kept = Kept(window=window, last=last)
    for number, loss in enumerate(losses, start=1):
        kept = kept.with_weights({"bias": np.full(2, number, np.float32)})
        kept = kept.with_epoch(Epoch(number, 1.0, Evaluation(loss, (), 0.0), 1.0, 1.0), kept.candidate)
    return kept


def test_the_weights_of_the_lowest_validation_loss_are_kept():
    assert after([3.0, 1.0, 2.0], window=1).best["bias"].tolist() == [2, 2]


def test_the_last_weights_are_kept_whatever_the_validation_loss():
    kept = after([3.0, 1.0, 2.0], last=True)
    assert kept.best["bias"].tolist() == [3, 3]
    assert kept.epoch == 3
    assert after([3.0, 1.0, 2.0]).epoch == 2


def test_the_mean_of_the_epochs_up_to_the_best_one_is_kept():
    # (2 + 3 + 4) / 3 at epoch 4; at the second epoch only two ends exist, (1 + 2) / 2.
    assert after([5.0, 4.0, 3.0, 1.0, 2.0], window=3).best["bias"].tolist() == [3, 3]
    assert after([5.0, 1.0, 3.0], window=3).best["bias"].tolist() == [1.5, 1.5]


def test_no_more_weights_are_held_than_the_mean_needs():
    assert [weights["bias"][0] for weights in after([1.0] * 6, window=4).recent] == [3, 4, 5, 6]


def test_without_validation_the_last_mean_is_kept():
    kept = Kept(window=2)
    for number in (1, 2, 3):
        kept = kept.with_weights({"bias": np.full(1, number, np.float32)})
        kept = kept.with_epoch(Epoch(number, 1.0, None, 1.0, 1.0), kept.candidate)
    assert kept.best["bias"].tolist() == [2.5]


def test_a_mean_keeps_the_dtype_and_rounds_once():
    third = mean([{"weight": np.float32([[value]])} for value in (1, 1, 2)])["weight"]
    assert third.dtype == np.float32
    assert third[0, 0] == np.float32(4 / 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mean_of_one_is_that_one(dtype):
    weights = {"bias": np.array([0.1], dtype)}
    assert mean([weights]) is weights
