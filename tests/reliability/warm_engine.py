"""Imported by the server of jobs: what takes most of the time of a tiny job is done once, and its jobs inherit it."""

import ctypes
import sys

import luigi.cmdline
import luigi.scheduler
import luigi.worker  # noqa: F401 (jobs find it imported, as what stands above)
import numpy as np
import tenacity  # noqa: F401 (the same)

from pipeline import fitting, parameters
from pipeline.config import Settings
from pipeline.examples import Examples
from pipeline.graph import TrainingStep, log_probabilities
from pipeline.network import FeedbackNetwork, NetworkConfig
from pipeline.ops import symbolic

ADOPT = 36  # Linux: PR_SET_CHILD_SUBREAPER of prctl(2)
OF_THE_EPOCHS = {"engine", "epochs", "patience", "batch_size", "seed", "prefetch"}

compile_step = fitting.compile_step
_compiled: dict[str, TrainingStep] = {}  # by network and settings


def compiled_once(engine, network, settings, *, objective=None, change_gradients=None) -> TrainingStep:
    """Return the step that the server has compiled of the same graph, as it begins; else compile one.

    Jobs that are commands of their own (suites 8, 9 and 11) compile theirs; those of suite 8 come to the same bytes.
    """
    graph = f"{engine.name} {network.config} {settings.model_dump(exclude=OF_THE_EPOCHS)} {change_gradients}"
    if graph not in _compiled:
        _compiled[graph] = compile_step(
            engine, network, settings, objective=objective, change_gradients=change_gradients
        )
    step = _compiled[graph]
    zeros = {name: np.zeros_like(variable.get_value()) for name, variable in step.state.items()}
    step.restore(parameters.flatten(network), zeros)
    return step


def warm() -> None:
    """Train for an epoch the network that most jobs train: of the changed catalog of `nights.make_tonight`."""
    settings = Settings(training={"compile_mode": "fast_compile", "epochs": 1, "batch_size": 8, "prefetch": 0}).training
    config = NetworkConfig(n_vocabulary=8, n_features=31, n_dense=0, hidden=4, n_classes=(2, 3))
    ones, labels = np.ones((8, 3), np.int32), np.zeros((8, 2), np.int32)
    examples = Examples.of(ones, labels, features=np.ones((8, config.n_features), np.float32))
    network = FeedbackNetwork.initialise(config, np.random.default_rng(1))
    network = fitting.fit(network, examples, examples, settings).network
    log_probabilities(symbolic.engine(), network, examples.inputs, mode="fast_compile")


if sys.platform == "linux":
    # What a killed job leaves behind becomes a child of this process, which waits for its children as they end. The
    # first process of a container may let them stand as dead for seconds.
    ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)
fitting.compile_step = compiled_once
warm()
