"""A network of one's own is steps over inputs; the base class and training do the rest."""

from dataclasses import dataclass

import numpy as np
import pytest
from graphs import every_engine
from test_fitting import CONFIG, make_examples, quick

from pipeline import parameters
from pipeline.fitting import fit
from pipeline.graph import log_probabilities
from pipeline.layers import Dense, Softmax, SparseProjection, TagMean
from pipeline.network import Network, NetworkConfig, Step
from pipeline.ops import symbolic


@dataclass(frozen=True)
class Counter:
    """A layer that counts the batches it has seen, and is otherwise nothing."""

    seen: object  # ()

    def __call__(self, x, training):
        return x


@dataclass(frozen=True)
class OneLevelAtATime(Network):
    """Tags for the first level, sparse features for the second; a counter, and a penalty on the embeddings."""

    config: NetworkConfig
    words: TagMean
    columns: SparseProjection
    counter: Counter
    head: Dense

    @property
    def steps(self):
        return (
            Step("mean", self.words, ("tag_index",), penalty=lambda mean: (mean * mean).sum()),
            Step(
                "counted",
                self.counter,
                ("mean", "training"),
                statistics=lambda mean, training: {"counter.seen": self.counter.seen + np.float32(1)},
            ),
            Step("logits_1", self.head, ("counted",)),
            Step("level_1", Softmax(), ("logits_1",)),
            Step("logits_2", self.columns, ("features_input",)),
            Step("level_2", Softmax(), ("logits_2",)),
        )


def make_network():
    rng = np.random.default_rng(2)
    return OneLevelAtATime(
        CONFIG,
        TagMean.initialise(CONFIG.n_vocabulary, 4, rng=rng),
        SparseProjection.initialise(CONFIG.n_features, 6, rng=rng),
        Counter(np.zeros((), np.float32)),
        Dense.initialise(4, 3, rng=rng),
    )


def test_the_tables_are_the_weights_of_tag_means_and_sparse_projections():
    assert make_network().tables == {"words.weight": "rows", "columns.weight": "columns"}


@every_engine
def test_a_network_of_ones_own_is_trained_and_computed_like_the_librarys(engine):
    network, examples = make_network(), make_examples()
    result = fit(network, examples, make_examples(seed=2), quick(engine=engine, epochs=10, weight_decay=0.1))
    assert type(result.network) is OneLevelAtATime
    assert result.history[-1].validation.path_accuracy > 0.9
    assert result.network.words.weight[0].tobytes() == bytes(16)
    found = log_probabilities(symbolic.engine(engine), result.network, examples.inputs, mode="fast_compile")
    for ours, theirs in zip(result.network(examples.inputs), found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_statistics_are_carried_on_and_neither_learned_nor_decayed():
    result = fit(make_network(), make_examples(), None, quick(epochs=3, weight_decay=0.5))
    assert result.network.counter.seen == 3 * 4  # 120 items in batches of 32


def test_a_penalty_is_weighed_by_the_expert_balance():
    def size(**changes):
        result = fit(make_network(), make_examples(), None, quick(epochs=3, **changes))
        return np.abs(result.network.words.weight).mean()

    assert size(expert_balance=1.0) < size(expert_balance=0.0)


def test_a_blank_network_takes_no_memory():
    blank = parameters.blank(make_network())
    assert blank.words.weight.shape == (13, 4)
    assert blank.words.weight.strides == (0, 0)


@pytest.mark.parametrize("name", ["words", "head"])
def test_layers_are_found_by_name(name):
    network = make_network()
    assert parameters.layers(network)[name] is getattr(network, name)
