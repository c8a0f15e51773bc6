"""The step size of every step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config_learning import TrainingSettings
from pipeline.schedule import learning_rate, rate_of


def test_a_constant_rate_stays():
    assert {learning_rate(step, highest=0.5, n_steps=9) for step in range(9)} == {0.5}


def test_half_a_cosine_falls_from_the_highest_to_nearly_nothing():
    rates = [learning_rate(step, highest=2.0, n_steps=4, cosine=True) for step in range(5)]
    # 1 + cos(0), cos(pi / 4), cos(pi / 2), cos(3 pi / 4), cos(pi)
    assert rates == pytest.approx([2.0, 1.70711, 1.0, 0.29289, 0.0], abs=1e-5)


def test_a_warm_up_that_is_longer_than_training_only_rises():
    assert [learning_rate(s, highest=1.0, n_steps=2, n_warm_up=4, cosine=True) for s in range(2)] == [0.25, 0.5]


@given(st.integers(1, 50), st.floats(0, 60), st.booleans())
def test_the_rate_rises_once_and_never_again_and_stays_within_its_bounds(n_steps, n_warm_up, cosine):
    rates = [learning_rate(s, highest=0.1, n_steps=n_steps, n_warm_up=n_warm_up, cosine=cosine) for s in range(n_steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    highest = rates.index(max(rates))
    assert rates[: highest + 1] == sorted(rates[: highest + 1])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)


def test_settings_count_in_epochs_and_steps_run_on_over_them():
    settings = TrainingSettings(learning_rate=1.0, epochs=2, warm_up=0.5, schedule="cosine")
    rates = [rate_of(settings, step, steps_per_epoch=4) for step in range(8)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx((1 + 0.8660254) / 2 - 0.8660254, abs=1e-6)  # 1 + cos(5 pi / 6), halved
