"""Loops of a training step in C that Theano takes in place of its own, in mode fast_run: same values, faster.

Theano adds rows to a table by NumPy's general iterator, takes exponentials one by one and transposes sparse matrices
by SciPy. These are the same operations with loops that a compiler can vectorise. The graph of a network does not
change: a rewrite replaces Theano's operation by ours when a function is compiled.
"""

from __future__ import annotations

from typing import Any

import theano
from theano import gof
from theano.compile import optdb
from theano.sparse.basic import CSM, StructuredDot, Transpose, csm_properties
from theano.tensor.elemwise import Elemwise, Sum
from theano.tensor.nnet.nnet import CrossentropySoftmaxArgmax1HotWithBias
from theano.tensor.subtensor import AdvancedIncSubtensor1, AdvancedSubtensor1

from pipeline.ops.theano_elements import CrossEntropy, Elementwise, PlainSum
from pipeline.ops.theano_rows import AddRows, SparseProduct, TakeRows

FLOATS = ("float32", "float64")


@gof.local_optimizer(  # type: ignore[untyped-decorator]
    [AdvancedIncSubtensor1, AdvancedSubtensor1, CrossentropySoftmaxArgmax1HotWithBias, Elemwise, StructuredDot, Sum]
)
def take_own_loops(node: Any) -> Any:
    """Return the outputs of the same operation with the loops above; False leaves the node as it is."""
    kind, result = type(node.op), node.outputs[0]
    if kind is AdvancedSubtensor1 and result.broadcastable == (False, False) and result.dtype in FLOATS:
        return TakeRows().make_node(*node.inputs).outputs
    if kind is Sum:
        return plain_sum(node)
    if kind is StructuredDot:
        return sparse_product(node)
    if kind is Elemwise and result.dtype == "float32" and result.ndim:
        return Elementwise(node.op.scalar_op, node.op.inplace_pattern).make_node(*node.inputs).outputs
    if kind not in (AdvancedIncSubtensor1, CrossentropySoftmaxArgmax1HotWithBias):
        return False
    x, second = node.inputs[:2]
    if x.ndim != 2 or x.dtype not in FLOATS or second.dtype != x.dtype:
        return False
    if kind is CrossentropySoftmaxArgmax1HotWithBias:
        return CrossEntropy(finds_largest=bool(node.outputs[2].clients)).make_node(*node.inputs).outputs
    if second.broadcastable != (False, False):
        return False
    options = {"inplace": node.op.inplace, "set_instead_of_inc": node.op.set_instead_of_inc}
    return AddRows(**options).make_node(*node.inputs).outputs


def plain_sum(node: Any) -> Any:
    """Return the outputs of the sum by our loops; False where it is not of a plain matrix of float32."""
    (x,), op = node.inputs, node.op
    if x.type.ndim != 2 or any(x.broadcastable) or not x.dtype == op.dtype == "float32":
        return False
    return PlainSum(axis=op.axis, dtype=op.dtype, acc_dtype=op.acc_dtype).make_node(x).outputs


def sparse_product(node: Any) -> Any:
    """Return the outputs of a sparse matrix times a dense one, by our loops; False where they are not made for it."""
    (x, dense), (result,) = node.inputs, node.outputs
    if result.broadcastable != (False, False) or not result.dtype == x.dtype == dense.dtype in FLOATS:
        return False
    turned = x.owner is not None and isinstance(x.owner.op, Transpose)
    x = x.owner.inputs[0] if turned else x
    if x.owner is not None and isinstance(x.owner.op, CSM):
        data, indices, indptr, shape = x.owner.inputs
    else:
        data, indices, indptr, shape = csm_properties(x)
    # A transpose changes which side the lines are on, and nothing else.
    scatters = (x.format == "csc") != turned
    n_rows = theano.tensor.cast(shape[1 if turned else 0], "int32")
    return SparseProduct(scatters=scatters).make_node(data, indices, indptr, n_rows, dense).outputs


def register() -> None:
    """Make Theano take these loops in mode fast_run, after it has decided what happens in place."""
    if "take_own_loops" not in optdb:
        optdb.register("take_own_loops", theano.tensor.opt.in2out(take_own_loops), 76, "fast_run")
