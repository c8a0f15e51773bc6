"""What a user brings along: a loss, gradients, layers and networks of one's own, in training as the library's are."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from graphs import ENGINES, every_engine
from test_fitting import make_examples, network, quick

from pipeline import ops, parameters
from pipeline.errors import TrainingError
from pipeline.fitting import fit
from pipeline.graph import log_probabilities
from pipeline.layers import Dense, Softmax, TagMean
from pipeline.network import Inputs, Network, NetworkConfig, Step
from pipeline.ops import symbolic


def likelihood(log_probabilities, labels):
    """Return the loss of the library, written anew: the mean over known labels, summed over levels."""
    o, total = ops.of(*log_probabilities), 0
    for level, log_probability in enumerate(log_probabilities):
        known = o.cast(labels[:, level] >= 0, log_probability)
        right = o.pick(log_probability, o.maximum(labels[:, level], 0))
        total = total - o.sum(known * right) / o.maximum(o.sum(known), 1)
    return total


@every_engine
def test_the_loss_of_the_library_as_ones_own_trains_the_same(engine):
    settings = quick(engine=engine, label_smoothing=0.0)
    ours = fit(network(), make_examples(), make_examples(seed=2), settings)
    own = fit(network(), make_examples(), make_examples(seed=2), settings, loss=likelihood)
    for expected, found in zip(ours.history, own.history, strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-4)
        assert found.validation.loss == pytest.approx(expected.validation.loss, rel=1e-4)
        assert found.validation.accuracy == expected.validation.accuracy


@every_engine
def test_a_loss_that_is_not_finite_ends_training_in_its_step(engine):
    def gone(log_probabilities, labels):
        return ops.of(labels).sum(log_probabilities[0]) * np.float32(np.nan)

    with pytest.raises(TrainingError, match=r"training diverged in epoch 1, step 1: loss nan, gradient norm nan"):
        fit(network(), make_examples(), None, quick(engine=engine), loss=gone)


def test_a_loss_that_is_finite_in_training_and_not_in_validation_is_told_as_such():
    def gone(log_probabilities, labels):
        value = likelihood(log_probabilities, labels)
        return value if ops.of(labels) is not ops.numeric else value * np.nan

    with pytest.raises(TrainingError, match=r"training diverged in epoch 1, step 4: validation loss nan"):
        fit(network(), make_examples(), make_examples(), quick(), loss=gone)


def test_gradients_that_are_not_finite_end_training_in_their_step():
    with pytest.raises(TrainingError, match=r"epoch 1, step 1: loss \d.*, gradient norm inf"):
        fit(
            network(),
            make_examples(),
            None,
            quick(),
            change_gradients=lambda gradients: {"hidden.bias": gradients["hidden.bias"] + np.float32(np.inf)},
        )


def test_a_loss_that_is_no_number_is_refused_before_the_compile():
    with pytest.raises(TrainingError, match="one number, and yours has 1 dimensions"):
        fit(network(), make_examples(), None, quick(), loss=lambda levels, labels: levels[0][:, 0])


def test_frozen_parameters_stay_and_the_others_learn():
    def freeze(gradients):
        return {name: gradient * 0 for name, gradient in gradients.items() if name.startswith("tags")}

    before, after = network(), fit(network(), make_examples(), None, quick(), change_gradients=freeze).network
    np.testing.assert_array_equal(after.tags.weight, before.tags.weight)
    assert (after.hidden.bias != before.hidden.bias).any()


def test_noise_on_all_gradients_leaves_the_padding_row_zero():
    def noisy(gradients):
        return {name: gradient + np.float32(0.1) for name, gradient in gradients.items()}

    after = fit(network(), make_examples(), None, quick(weight_decay=0.1), change_gradients=noisy).network
    assert after.tags.weight[0].tobytes() == np.zeros(8, np.float32).tobytes()


@dataclass(frozen=True)
class Swish:
    """A layer of one's own, with a parameter."""

    sharpness: ops.Array  # (n_hidden,)

    def __call__(self, *inputs):
        total = sum(inputs[1:], inputs[0])
        return total * ops.of(total).sigmoid(total * self.sharpness)


@every_engine
def test_a_layer_of_ones_own_takes_the_place_of_another(engine):
    own = replace(network(), hidden=Swish(np.ones(8, np.float32)))
    result = fit(own, make_examples(), make_examples(seed=2), quick(engine=engine, epochs=8))
    assert result.history[-1].validation.path_accuracy > 0.9
    assert (result.network.hidden.sharpness != 1).all()


@dataclass(frozen=True)
class TwoHeads(Network):
    """A network of one's own: the mean of the tags, a layer of one's own, a softmax a level; no sparse features."""

    config: NetworkConfig
    words: TagMean
    hidden: Swish
    top: Dense
    bottom: Dense

    @classmethod
    def initialise(cls, config, rng):
        first, second = (Dense.initialise(config.hidden, n_classes, rng=rng) for n_classes in config.n_classes)
        words = TagMean.initialise(config.n_vocabulary, config.hidden, rng=rng)
        return cls(config, words, Swish(np.ones(config.hidden, np.float32)), first, second)

    @property
    def steps(self):
        return (
            Step("words", self.words, ("tag_index",)),
            Step("hidden", self.hidden, ("words",)),
            Step("logits_1", self.top, ("hidden",)),
            Step("level_1", Softmax(), ("logits_1",)),
            Step("logits_2", self.bottom, ("hidden",)),
            Step("level_2", Softmax(), ("logits_2",)),
        )


OWN = NetworkConfig(n_vocabulary=13, n_features=0, n_dense=0, hidden=8, n_classes=(3, 6))


def tags_only(*, seed=1):
    return replace(make_examples(seed=seed), features=None)


@pytest.mark.parametrize("loss", ["nll", "hinge"])
@every_engine
def test_a_network_of_ones_own_learns_and_its_layers_are_functions_of_arrays(engine, loss):
    own = TwoHeads.initialise(OWN, np.random.default_rng(1))
    settings = quick(engine=engine, epochs=12, learning_rate=0.05, dropout=0.0, loss=loss)
    result = fit(own, tags_only(), tags_only(seed=2), settings)
    assert result.history[-1].validation.path_accuracy > 0.9
    trained, inputs = result.network, Inputs(tags_only().tag_index[:5])
    assert trained.names == ("words", "hidden", "logits_1", "level_1", "logits_2", "level_2")
    np.testing.assert_array_equal(trained[-1](inputs), trained["level_2"](inputs))
    np.testing.assert_allclose(np.exp(trained[-1](inputs)).sum(axis=1), 1, rtol=1e-6)
    assert trained["hidden"](inputs).shape == trained[1](inputs).shape == (5, 8)
    expected = log_probabilities(symbolic.engine(engine), trained, inputs, mode="fast_compile")
    for ours, theirs in zip(trained(inputs), expected, strict=True):
        np.testing.assert_allclose(np.exp(ours), np.exp(theirs), rtol=0, atol=1e-6)


def test_a_network_of_ones_own_is_saved_and_loaded_and_trains_on(tmp_path):
    settings = quick(epochs=4)
    own = fit(TwoHeads.initialise(OWN, np.random.default_rng(1)), tags_only(), None, settings).network
    parameters.save(tmp_path / "own.h5", own)
    loaded = parameters.fill(TwoHeads.initialise(OWN, None), parameters.load(tmp_path / "own.h5"))
    again, on = (fit(start, tags_only(), None, settings) for start in (own, loaded))
    assert (
        on.history[0].loss
        < 0.9 * fit(TwoHeads.initialise(OWN, np.random.default_rng(1)), tags_only(), None, settings).history[0].loss
    )
    np.testing.assert_array_equal(again.network.top.weight, on.network.top.weight)


@pytest.mark.skipif(len(ENGINES) < 2, reason="one engine only is installed")
def test_one_process_trains_with_both_engines_in_turns():
    settings = [quick(engine=engine, epochs=1) for engine in (*ENGINES, *ENGINES)]
    results = [fit(network(), make_examples(), None, each) for each in settings]
    assert [result.engine.split()[0] for result in results] == [*ENGINES, *ENGINES]
    for first, second in zip(results[:2], results[2:], strict=True):
        np.testing.assert_array_equal(first.network.cell.weight, second.network.cell.weight)
    np.testing.assert_allclose(results[0].network.cell.weight, results[1].network.cell.weight, rtol=0, atol=1e-4)
