"""The operations of the layers on graphs, and the only module that knows Theano and PyTensor.

`engine("auto")` is Theano where it is installed, else PyTensor, its living continuation. Both can live
in one process: a graph belongs to the engine whose variables it is made of. Before an engine is imported
its flags are completed (what the user set in THEANO_FLAGS or PYTENSOR_FLAGS stays): no BLAS of its own,
float32, and a compile directory that only this user can write, as the engines load pickles from it.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from pipeline.errors import TrainingError
from pipeline.ops.compiled import private_folder

Variable = Any  # an expression, input or shared variable of an engine
ENGINES = ("theano", "pytensor")


class Engine:
    """An engine's operations (see `pipeline.ops.Ops`), and what only graphs need: inputs, gradients, functions."""

    def __init__(self, name: str) -> None:
        self.name = name
        _forget_extensions()
        # Theano and PyTensor 2 say that they take NumPy's BLAS, which is what complete_flags asked them to do.
        logging.getLogger(f"{name}.tensor.blas").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Theano 1.0.5 uses names that NumPy 1.23 deprecates, and numpy.distutils.
            warnings.simplefilter("ignore")
            self.root = importlib.import_module(name)
            self.tensor = importlib.import_module(f"{name}.tensor")
            self.sparse = importlib.import_module(f"{name}.sparse")
            special = importlib.import_module(f"{name}.tensor.nnet" if name == "theano" else f"{name}.tensor.special")
            if name == "theano":
                from pipeline.ops import theano_loops  # here, as it imports Theano

                theano_loops.register()
        self.version: str = self.root.__version__
        self._special = special

    @property
    def compiler(self) -> str:
        """Return the C++ compiler that the engine found; empty where there is none."""
        return str(self.root.config.cxx)

    # What only graphs need.

    def variable(self, name: str, *, dtype: str, ndim: int) -> Variable:
        """Return a dense input of a graph."""
        if self.name == "theano":
            return self.tensor.TensorType(dtype, (False,) * ndim)(name)
        return self.tensor.tensor(name, dtype=dtype, shape=(None,) * ndim)

    def sparse_variable(self, name: str, *, dtype: str) -> Variable:
        """Return a sparse input of a graph, a SciPy CSC matrix."""
        return self.sparse.csc_matrix(name, dtype=dtype)

    def shared(self, value: Any, name: str) -> Variable:
        """Return a variable that holds a copy of the array and that updates change."""
        array = np.array(value)
        shape = {} if self.name == "theano" else {"shape": (None,) * array.ndim}
        return self.root.shared(array, name=name, **shape)

    def grad(self, cost: Variable, wanted: Sequence[Variable]) -> list[Variable]:
        """Return the gradient of a scalar with respect to each variable; zeros where it does not depend on one."""
        with _quiet():
            return list(self.root.grad(cost, list(wanted), disconnected_inputs="ignore"))

    def function(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        *,
        updates: Mapping[Variable, Variable] | None = None,
        mode: str,
    ) -> Any:
        """Return the compiled function of the graph; mode is 'fast_run' or 'fast_compile'."""
        changes = [] if updates is None else list(updates.items())
        _forget_extensions()
        with _quiet():
            return self.root.function(
                list(inputs), list(outputs), updates=changes, mode=self._mode(mode), on_unused_input="ignore"
            )

    def _mode(self, name: str) -> Any:
        """Return the engine's mode of compilation; Theano's own gemm copies its matrices, NumPy's product does not."""
        if self.name != "theano":
            return name.upper()
        return self.root.compile.mode.get_mode(name.upper()).excluding("gemm_optimizer", "local_dot22_to_dot22scalar")

    def rows(self, table: Variable, index: Variable) -> Variable:
        """Return table[index], (n, m), to differentiate by in place of the table."""
        return table[index]

    def add_to_rows(self, rows: Variable, change: Variable) -> Variable:
        """Return the table of which `rows` are rows, with `change` added to them; the rows must be distinct."""
        return self.tensor.inc_subtensor(rows, change)

    def set_rows(self, rows: Variable, value: Variable) -> Variable:
        """Return the table of which `rows` are rows, with these rows replaced; the rows must be distinct."""
        return self.tensor.set_subtensor(rows, value)

    def column(self, x: Variable) -> Variable:
        """Return a vector (n,) as a column (n, 1) that stretches over a matrix."""
        return x.dimshuffle(0, "x")

    # The operations of the layers.

    def constant(self, value: float, like: Variable) -> Any:
        """Return the number in the dtype of `like`; a bare float would be rounded to float32 in float64 graphs."""
        return np.asarray(value, like.dtype)

    def cast(self, x: Variable, like: Variable) -> Variable:
        """Return x in the dtype of `like`."""
        return self.tensor.cast(x, like.dtype)

    def dot(self, x: Variable, weight: Variable) -> Variable:
        """Return x @ weight, dense; a sparse x takes structured_dot, whose gradient to the weight stays cheap."""
        if isinstance(x.type, self.sparse.SparseTensorType if self.name == "pytensor" else self.sparse.SparseType):
            return self.sparse.structured_dot(x, weight)
        return self.tensor.dot(x, weight)

    def sum_rows(self, table: Variable, index: Variable, mask: Variable) -> Variable:
        """Return the sum over t of mask[i, t] * table[index[i, t]], (n, m); indexes are checked before the graph."""
        if self.name != "theano":
            # A vector of indexes has compiled code, a matrix of them has not.
            rows = table[index.flatten()].reshape((index.shape[0], index.shape[1], table.shape[1]))
            return self.sum(rows * mask.dimshuffle(0, 1, "x"), axis=1)
        # As a sparse matrix of the mask, whose product needs no room for the rows of every entry.
        n_items, n_entries = index.shape[0], index.shape[1]
        indptr = self.tensor.cast(self.tensor.arange(n_items + 1) * n_entries, "int32")
        shape = self.tensor.stack([n_items, table.shape[0]])
        bags = self.sparse.CSR(mask.flatten(), self.tensor.cast(index.flatten(), "int32"), indptr, shape)
        return self.sparse.structured_dot(bags, table)

    def sum(self, x: Variable, *, axis: int | None = None, keepdims: bool = False) -> Variable:
        """Return the sum, accumulated in the dtype of x: the engines would take float64."""
        return self.tensor.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype, acc_dtype=x.dtype)

    def mean(self, x: Variable, *, axis: int | None = None, keepdims: bool = False) -> Variable:
        """Return the mean, accumulated in the dtype of x."""
        return self.tensor.mean(x, axis=axis, keepdims=keepdims, dtype=x.dtype, acc_dtype=x.dtype)

    def sqrt(self, x: Variable) -> Variable:
        """Return the square root."""
        return self.tensor.sqrt(x)

    def exp(self, x: Variable) -> Variable:
        """Return e^x; exactly 0 for minus infinity."""
        return self.tensor.exp(x)

    def log_sum_exp(self, x: Variable, *, axis: int) -> Variable:
        """Return log(sum(exp(x))) along an axis; the largest entry, taken off first, is a constant to the gradient."""
        largest = self.root.gradient.disconnected_grad(self.tensor.max(x, axis=axis, keepdims=True))
        total = self.tensor.log(self.sum(self.tensor.exp(x - largest), axis=axis, keepdims=True)) + largest
        return self.sum(total, axis=axis)

    def maximum(self, x: Variable, bound: float) -> Variable:
        """Return the larger of x and bound, in the dtype of x."""
        return self.tensor.maximum(x, self.constant(bound, x))

    def sigmoid(self, x: Variable) -> Variable:
        """Return 1 / (1 + exp(-x)); Theano's gives exactly 1 above 15 in float32."""
        return self._special.sigmoid(x) if self.name == "theano" else self.tensor.sigmoid(x)

    def relu(self, x: Variable) -> Variable:
        """Return max(x, 0)."""
        return self.maximum(x, 0)

    def log_softmax(self, logits: Variable) -> Variable:
        """Return the log-probabilities of each row."""
        if self.name == "theano":
            return self._special.logsoftmax(logits)
        return self._special.log_softmax(logits, axis=1)

    def keep_topk(self, x: Variable, k: int) -> Variable:
        """Return x where it is among the k largest of its row, minus infinity elsewhere."""
        # Ranks are constants to the gradient: argsort has none. Of the stable sorts, Numba knows mergesort only.
        order = self.tensor.argsort(-self.root.gradient.disconnected_grad(x), axis=-1, kind="mergesort")
        rank = self.tensor.argsort(order, axis=-1, kind="mergesort")
        return self.tensor.switch(self.tensor.lt(rank, k), x, self.constant(-np.inf, x))

    def take_columns(self, x: Variable, index: Sequence[int]) -> Variable:
        """Return x[:, index], (n, len(index))."""
        # Rows by a vector of indexes have compiled code in both engines, columns have not.
        return x.T[np.asarray(index, np.int32)].T

    def pick(self, matrix: Variable, column: Variable) -> Variable:
        """Return matrix[i, column[i]] of each row, (n,)."""
        return matrix[self.tensor.arange(column.shape[0]), column]

    def take(self, values: Any, index: Variable) -> Variable:
        """Return values[index], (n,); an array of values becomes a constant."""
        return self.tensor.as_tensor_variable(values)[index]

    def negative_log_likelihood(self, logits: Variable, target: Variable) -> Variable:
        """Return -log softmax(logits)[i, target[i]] of each row, (n,); Theano fuses this very form into one C op."""
        if self.name == "theano":
            return self._special.categorical_crossentropy(self._special.softmax(logits), target)
        return -self.pick(self.log_softmax(logits), target)


def engine(name: str = "auto") -> Engine:
    """Return the engine 'theano' or 'pytensor'; 'auto' is Theano where it is installed, else PyTensor.

    Raises TrainingError where the engine is not installed or cannot be imported. Warns, once, where
    there is no C++ compiler for Theano.
    """
    if name == "auto":
        name = "theano" if find_spec("theano") is not None else "pytensor"
    if name not in ENGINES:
        raise TrainingError(f"engine '{name}' is unknown; [training] engine is auto, theano or pytensor")
    return _load(name)


@cache
def _load(name: str) -> Engine:
    if find_spec(name) is None:
        raise TrainingError(
            f"training needs Theano (Python 3.11) or PyTensor (Python 3.12 and later), and {name} is not installed: "
            f"pip install {'theano==1.0.5' if name == 'theano' else 'pytensor'}; scoring a trained model needs neither"
        )
    if name == "theano" and np.lib.NumpyVersion(np.__version__) >= "1.24.0":
        # NumPy 2 has np.bool again, so that Theano is imported and fails much later, in C.
        raise TrainingError(
            f"Theano 1.0.5 needs NumPy below 1.24, and {np.__version__} is installed (another package has pulled it "
            "in): pip install 'numpy>=1.23,<1.24'"
        )
    variable = f"{name.upper()}_FLAGS"
    os.environ[variable] = complete_flags(os.environ.get(variable, ""), engine=name)
    try:
        loaded = Engine(name)
    except Exception as error:
        raise TrainingError(
            f"{name} is installed but cannot be imported: {type(error).__name__}: {error}; "
            f"{variable} is '{os.environ[variable]}'"
        ) from error
    if name == "theano" and not loaded.compiler:
        warnings.warn(
            "Theano finds no C++ compiler: a training step takes about 600 times longer; "
            "install g++ and Python's headers (Debian: apt-get install g++ python3-dev)",
            RuntimeWarning,
            stacklevel=3,
        )
    return loaded


def complete_flags(flags: str, *, engine: str) -> str:
    """Return the engine's flags with ours added where the user has not set them.

    >>> complete_flags("blas.ldflags=-lopenblas,base_compiledir=/here", engine="theano")
    'blas.ldflags=-lopenblas,base_compiledir=/here,floatX=float32'
    """
    given = {flag.partition("=")[0].strip().replace("__", ".") for flag in flags.split(",") if flag.strip()}
    # Theano looks for BLAS through numpy.distutils, which NumPy 1.23 has emptied; it calls NumPy's own instead.
    wanted = {"blas.ldflags" if engine == "theano" else "blas__ldflags": "", "floatX": "float32"}
    if engine == "pytensor":
        # With fastmath the last bits depend on whether Numba compiled a function now or took it from its cache.
        wanted["numba__fastmath"] = "False"
    if not given & {"compiledir", "base_compiledir"}:
        wanted["base_compiledir"] = str(private_folder(engine))
    added = [f"{name}={value}" for name, value in wanted.items() if name.replace("__", ".") not in given]
    return ",".join([part.strip() for part in flags.split(",") if part.strip()] + added)


def _forget_extensions() -> None:
    """Make both engines find their own extensions: they compile them under the same names, and hold on to them."""
    for name in ("lazylinker_ext", "cutils_ext"):
        sys.modules.pop(name, None)
        sys.modules.pop(f"{name}.{name}", None)


def _quiet() -> warnings.catch_warnings[None]:
    """Return a context that hides the engines' own deprecation warnings, which a user cannot mend."""
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)
