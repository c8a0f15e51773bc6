"""Decoding: the best legal paths, against numbers worked out by hand and a plain loop over all paths."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoding import decode, decode_raw, marginals, path_probabilities, path_starts
from pipeline.errors import ModelError
from pipeline.taxonomy import Taxonomy

# Classes: Drama 0, Horror 1; below: (Drama, -) 0, (Horror, Vampires) 1, (Horror, Zombies) 2.
LADDER = Taxonomy.of(("genre", "theme"), [("Drama",), ("Horror", "Vampires"), ("Horror", "Zombies")])


def logs(*levels):
    return [np.log(np.array(level, dtype=np.float64)) for level in levels]


def test_a_path_has_the_product_of_its_levels_renormalised_over_the_legal_paths():
    # Paths: Drama .6 * .1 = .06, Vampires .4 * .3 = .12, Zombies .4 * .6 = .24; their sum is .42.
    decoded = decode(logs([[0.6, 0.4]], [[0.1, 0.3, 0.6]]), LADDER, n_best=3)
    assert decoded.path.tolist() == [[2, 1, 0]]
    assert decoded.path_probability[0] == pytest.approx([0.24 / 0.42, 0.12 / 0.42, 0.06 / 0.42])
    assert decoded.classes.tolist() == [[[1, 2], [1, 1], [0, 0]]]


def test_a_level_has_the_marginals_of_the_paths():
    decoded = decode(logs([[0.6, 0.4]], [[0.1, 0.3, 0.6]]), LADDER, n_best=1)
    assert decoded.level_probability[0] == pytest.approx([0.36 / 0.42, 0.24 / 0.42])


def test_a_stop_is_a_path_like_any_other():
    decoded = decode(logs([[0.9, 0.1]], [[0.8, 0.1, 0.1]]), LADDER, n_best=1)
    assert LADDER.path_names(int(decoded.path[0, 0])) == ["Drama"]


def test_ties_go_to_the_path_that_stands_first():
    decoded = decode(logs([[0.5, 0.5]], [[1 / 3, 1 / 3, 1 / 3]]), LADDER, n_best=3)
    assert decoded.path.tolist() == [[0, 1, 2]]


def test_logits_do_as_well_as_log_probabilities():
    levels = logs([[0.6, 0.4]], [[0.1, 0.3, 0.6]])
    plain, moved = (decode(x, LADDER, n_best=2) for x in (levels, [levels[0] + 5, levels[1] - 3]))
    assert moved.path.tolist() == plain.path.tolist()
    assert moved.path_probability == pytest.approx(plain.path_probability)


def test_more_paths_than_there_are_give_all_paths():
    assert decode(logs([[0.6, 0.4]], [[0.1, 0.3, 0.6]]), LADDER, n_best=99).path.shape == (1, 3)


def test_one_level_is_its_own_path_and_the_input_stays_as_it_was():
    ladder = Taxonomy.of(("genre",), [("Drama",), ("Horror",)])
    levels = logs([[0.25, 0.75]])
    before = levels[0].copy()
    decoded = decode(levels, ladder, n_best=2)
    assert decoded.path.tolist() == [[1, 0]]
    assert decoded.path_probability[0] == pytest.approx([0.75, 0.25])
    assert np.array_equal(levels[0], before)


def test_one_class_is_certain():
    ladder = Taxonomy.of(("genre", "theme"), [("Drama",)])
    decoded = decode([np.zeros((2, 1)), np.zeros((2, 1))], ladder, n_best=3)
    assert decoded.path_probability.tolist() == [[1.0], [1.0]]


def test_an_empty_batch_gives_empty_results():
    decoded = decode([np.zeros((0, 2)), np.zeros((0, 3))], LADDER, n_best=2)
    assert decoded.path.shape == (0, 2)
    assert decoded.level_probability.shape == (0, 2)


def test_float32_stays_float32():
    levels = [level.astype(np.float32) for level in logs([[0.6, 0.4]], [[0.1, 0.3, 0.6]])]
    decoded = decode(levels, LADDER, n_best=2)
    assert {decoded.path_probability.dtype, decoded.level_probability.dtype} == {np.dtype(np.float32)}


def test_another_number_of_classes_is_refused():
    with pytest.raises(ModelError, match=r"\(2, 2\) classes a level, the taxonomy has \(2, 3\)"):
        decode([np.zeros((1, 2)), np.zeros((1, 2))], LADDER, n_best=1)


@pytest.mark.parametrize("decoder", [lambda x: decode(x, LADDER, n_best=1), decode_raw])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_value_that_is_no_number_is_refused(decoder):
    with pytest.raises(ModelError, match="row 1 of the batch"):
        decoder([np.array([[0.0, 0.0], [0.0, np.nan]]), np.zeros((2, 3))])


def test_raw_heads_choose_each_level_by_itself_and_may_be_illegal():
    decoded = decode_raw(logs([[0.6, 0.4]], [[0.1, 0.3, 0.6]]))
    assert decoded.path is None
    assert decoded.classes.tolist() == [[[0, 2]]]
    assert decoded.level_probability[0] == pytest.approx([0.6, 0.6])
    assert decoded.path_probability[0] == pytest.approx([0.36])


def test_paths_out_of_order_are_refused():
    class Disordered:
        levels, n_classes, paths = ("genre",), (2,), np.array([[1], [0]])

    with pytest.raises(ModelError, match="level 'genre'"):
        path_starts(Disordered())


def names(depth):
    return st.lists(st.sampled_from("abc"), min_size=1, max_size=depth)


@st.composite
def networks_outputs(draw):
    depth = draw(st.integers(1, 4))
    ladder = Taxonomy.of([str(k) for k in range(depth)], draw(st.lists(names(depth), min_size=1, max_size=12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.0, 1.0, 30.0]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    n = draw(st.integers(1, 5))
    return ladder, [(rng.normal(size=(n, size)) * scale).astype(dtype) for size in ladder.n_classes]


@given(networks_outputs(), st.integers(1, 5))
def test_every_decoded_path_is_legal_and_the_probabilities_agree(case, n_best):
    ladder, levels = case
    decoded = decode(levels, ladder, n_best=n_best)
    legal = {tuple(path) for path in ladder.paths.tolist()}
    paths = [tuple(path) for path in itertools.chain(*decoded.classes.tolist())]
    assert set(paths) <= legal
    assert all(len(set(map(tuple, best))) == len(best) for best in decoded.classes.tolist())
    assert (np.diff(decoded.path_probability, axis=1) <= 0).all()
    assert decoded.path_probability.sum(axis=1).max() <= 1 + 1e-5
    # A child is never more probable than its parent, and the last level is the path itself.
    assert (np.diff(decoded.level_probability, axis=1) <= 1e-6).all()
    assert decoded.level_probability[:, -1] == pytest.approx(decoded.path_probability[:, 0], abs=1e-6)


@given(networks_outputs())
def test_decoding_agrees_with_a_loop_over_all_paths(case):
    ladder, levels = case
    levels = [level.astype(np.float64) for level in levels]
    decoded = decode(levels, ladder, n_best=1)
    for row in range(len(levels[0])):
        weights = [np.exp(sum(level[row, c] for level, c in zip(levels, path, strict=True))) for path in ladder.paths]
        best = int(np.argmax(weights))
        assert decoded.path_probability[row, 0] == pytest.approx(weights[best] / sum(weights))
        for k, chosen in enumerate(ladder.paths[decoded.path[row, 0]]):
            share = sum(w for w, path in zip(weights, ladder.paths, strict=True) if path[k] == chosen) / sum(weights)
            assert decoded.level_probability[row, k] == pytest.approx(share)


@given(networks_outputs())
def test_all_probabilities_sum_to_one_and_a_parent_to_its_children(case):
    ladder, levels = case
    paths = path_probabilities([level.astype(np.float64) for level in levels], ladder)
    every_level = marginals(paths, ladder)
    for level in (paths, *every_level):
        assert level.sum(axis=1) == pytest.approx(np.ones(len(level)))
    for k, parents in enumerate(ladder.parents[1:], start=1):
        from_children = np.zeros_like(every_level[k - 1])
        for child, parent in enumerate(parents):
            from_children[:, parent] += every_level[k][:, child]
        assert from_children == pytest.approx(every_level[k - 1])


def test_logits_of_any_size_have_probabilities():
    assert path_probabilities([np.array([[1000.0, 0.0]]), np.zeros((1, 3))], LADDER).tolist() == [[1.0, 0.0, 0.0]]


@given(networks_outputs())
def test_a_row_does_not_depend_on_the_rows_beside_it(case):
    ladder, levels = case
    together = decode(levels, ladder, n_best=2)
    for row in range(len(levels[0])):
        alone = decode([level[row : row + 1] for level in levels], ladder, n_best=2)
        for field in dataclasses.fields(alone):
            assert np.array_equal(getattr(alone, field.name)[0], getattr(together, field.name)[row])
