"""Suite 9: numbers that are none, steps out of all bounds, too little memory: a clear end, nothing published."""

import subprocess

import numpy as np
import pytest
from nights import LONGER, TONIGHT, Night, Tonight, rounds
from small_job import DATE, STAGES, write_items

from pipeline import network, parameters, pointers, training


def weight() -> None:
    """Plant NaN in a weight that training begins with."""
    initialise = network.FeedbackNetwork.initialise

    def planted(config, rng):
        made = initialise(config, rng)
        weights = {name: np.array(value) for name, value in parameters.flatten(made).items()}
        weights["hidden.bias"][0] = np.nan
        return parameters.fill(made, weights)

    training.FeedbackNetwork.initialise = staticmethod(planted)


def gradient() -> None:
    """Plant NaN in a gradient."""
    fit = training.fit
    training.fit = lambda *parts, **options: fit(*parts, **{**options, "change_gradients": spoil})


def spoil(gradients):
    name = next(iter(gradients))
    return {name: gradients[name] * np.float32("nan")}


def feature() -> None:
    """Plant NaN in a sparse feature of the training part."""
    held = training.held

    def planted(part):
        examples = held(part)
        examples.features.data[0] = np.nan
        return examples

    training.held = planted


def check_nothing_new(tonight: Tonight, night: Night, *, since: str) -> None:
    """Assert that yesterday's results are the latest, and that no stage from one on has published anything."""
    before = tonight.yesterday.root
    assert pointers.latest(night.root) == pointers.latest(before)
    for stage in STAGES[STAGES.index(since) :]:
        assert {path.name for path in (night.root / stage).iterdir()} == {
            path.name for path in (before / stage).iterdir()
        }
    night.verify()


@pytest.mark.parametrize("plant", [weight, gradient, feature])
def test_a_number_that_is_none_ends_training(tonight, tmp_path, figure, plant):
    night = tonight.yesterday.copy(tmp_path / "night")
    assert night.code(plant=plant) == 30, night.log.read_text()
    assert "TrainModel: training diverged in epoch 1" in night.log.read_text()
    check_nothing_new(tonight, night, since="train")
    night.succeeds()
    tonight.check(night)
    figure(f"9 NaN in a {plant.__name__}: exit 30, nothing published, the next run equal")


def test_a_learning_rate_a_thousand_times_too_high_publishes_nothing(server, tmp_path, figure):
    night = Night(tmp_path / "night")
    night.folder.mkdir()
    write_items(night.folder / "items.csv", n=300)
    (night.folder / "luigi.cfg").write_text(LONGER)
    night.succeeds("ScoreCatalog", "--date", DATE)
    before = pointers.latest(night.root)
    code = night.code(*TONIGHT, "--training-learning-rate", "5", "--training-clip-norm", "0")
    said = night.log.read_text()
    assert code == 30, said
    assert "diverged" in said or "is refused" in said
    assert pointers.latest(night.root).model == before.model
    night.verify()
    figure("9 learning rate times 1,000: exit 30, the model was not used")


WIDE = ("--features-hash-width", str(1 << 23), "--network-hidden", "128")  # a table of 4 GiB


def limited(night: Night, megabytes: int, *flags: str) -> tuple[int, str]:
    """Run the command with a limit on its address space; return exit code and what it said."""
    command = ["bash", "-c", f'ulimit -v {megabytes << 10}; exec "$@"', "bash", *night.command(*TONIGHT, *flags)]
    environment = night.known_environment()
    done = subprocess.run(command, cwd=night.folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@rounds(1, 10)
def test_too_little_memory_is_told_by_the_parent(tonight, tmp_path, figure, n):
    codes = []
    for at, megabytes in enumerate(np.geomspace(300, 4000, n).astype(int) if n > 1 else [2200]):
        for flags in ((), WIDE) if megabytes > 2048 else ((),):
            night = tonight.yesterday.copy(tmp_path / f"{at} {len(flags)}")
            code, said = limited(night, int(megabytes), *flags)
            codes.append(code)
            assert code in ((30,) if flags else (0, 30, 40)), said
            assert code == 0 or said.strip()
            night.verify()
            assert pointers.latest(night.root).run in tonight.runs
            night.succeeds()
            if not flags:
                tonight.check(night)
    figure(
        f"9 memory limits: {n}: {codes.count(40)} refused at once (40), {codes.count(0)} were enough, and with a table "
        f"of 4 GiB {codes.count(30)} ended with 30 and a message; all good without the limit"
    )
