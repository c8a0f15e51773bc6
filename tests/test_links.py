import numpy as np

from pipeline.links import LabelFeedback, ParentMask, Sum


def test_the_expected_embedding_is_that_of_the_likely_labels():
    layer = LabelFeedback(np.array([[1.0, 0], [0, 10]]))
    found = layer(np.array([[5.0, 5]]), np.log([[0.25, 0.75]]))
    np.testing.assert_allclose(found, [[5.25, 12.5]])


def test_a_class_is_masked_by_its_parent():
    np.testing.assert_array_equal(ParentMask((1, 0, 0))(np.array([[-0.1, -9.0]])), [[-9, -0.1, -0.1]])


def test_a_child_of_an_impossible_parent_is_impossible():
    with np.errstate(divide="ignore"):
        above = np.log(np.array([[1.0, 0.0]]))
    logits = Sum()(np.array([[0.0, 50.0]]), ParentMask((0, 1))(above))
    np.testing.assert_array_equal(np.exp(logits), [[1, 0]])


def test_a_sum_of_one_is_that_one():
    np.testing.assert_array_equal(Sum()(np.array([[3.0]])), [[3]])
