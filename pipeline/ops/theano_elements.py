"""Elements in C for Theano: expressions and sums of a matrix's elements, and the loss over the classes of a level."""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from theano.gof.utils import MethodNotDefined
from theano.tensor.elemwise import Elemwise, Sum
from theano.tensor.nnet.nnet import CrossentropySoftmaxArgmax1HotWithBias

from pipeline.ops.theano_rows import VECTORISE

VERSION = zlib.crc32(Path(__file__).read_bytes())  # what was compiled of another state of this file is not taken
LOOP = "for(int i=0; i<n; i++){"  # as Theano 1.0.5 writes it

# exp of float32 to about one unit in the last place, without a branch: 2^k times a polynomial (Cephes, expf).
# It is infinite above 88.7 and 0 below -86.7; NaN stays NaN.
EXPONENTIAL = """
    static inline float vector_exp(float x) {
        x = x < -87.0f ? -87.0f : x;
        x = x > 89.0f ? 89.0f : x;
        const float k = __builtin_rintf(x * 1.44269504088896341f);
        const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
        float p = 1.9875691500e-4f;
        p = p * r + 1.3981999507e-3f;
        p = p * r + 8.3334519073e-3f;
        p = p * r + 4.1665795894e-2f;
        p = p * r + 1.6666665459e-1f;
        p = p * r + 5.0000001201e-1f;
        p = p * r * r + r + 1.0f;
        union { int i; float f; } power;
        power.i = ((int)k + 126) << 23;
        return p * power.f * 2.0f;
    }
    static inline double vector_exp(double x) { return exp(x); }
"""


class Elementwise(Elemwise):  # type: ignore[misc]  # Theano has no types
    """An expression of elements whose loop a compiler may vectorise although a result overwrites its input."""

    def c_support_code(self) -> str:
        """Return what the expression needs, and the exponential."""
        with suppress(MethodNotDefined):
            return str(super().c_support_code()) + EXPONENTIAL
        return EXPONENTIAL

    def c_compile_args(self) -> list[str]:
        """Return the flags of the loops."""
        return VECTORISE

    def _c_all(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> tuple[str, str, str, str]:
        """Return Theano's code, in front of whose loops stands one for rows that are contiguous or one number each."""
        declare, check, allocate, loop = super()._c_all(node, name, inputs, outputs, sub)
        loop = loop.replace(LOOP, "\n#pragma omp simd\n" + LOOP)
        if node.outputs[0].broadcastable == (False, False):
            loop = f"{self._by_rows(node, name, inputs, outputs, sub)} else {{ {loop} }}"
        return declare, check, allocate, re.sub(r"\bexp\(", "vector_exp(", loop)

    def _by_rows(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        """Return the loop over rows and columns: a column broadcast is read before the row, a row broadcast again."""
        over = {outputs[to]: inputs[of[0]] for to, of in self.destroy_map.items()}
        arrays = dict(zip(inputs, node.inputs, strict=True))
        arrays |= {to: variable for to, variable in zip(outputs, node.outputs, strict=True) if to not in over}
        wide = [array for array, variable in arrays.items() if not variable.broadcastable[1]]
        whole = [array for array, variable in arrays.items() if not all(variable.broadcastable)]
        even = all(variable.broadcastable in {(False, False), (True, True)} for variable in arrays.values())
        pointers, elements = "", ""
        for array, variable in arrays.items():
            step = "0" if variable.broadcastable[0] else f"row * PyArray_STRIDES({array})[0]"
            pointers += f"dtype_{array}* const {array}_row = (dtype_{array}*)(PyArray_BYTES({array}) + {step});\n"
            if array in wide:
                elements += f"dtype_{array}& {array}_i = {array}_row[column];\n"
            else:
                pointers += f"dtype_{array} {array}_i = {array}_row[0];\n"
        for to, of in over.items():
            elements += f"dtype_{to}& {to}_i = {of}_i;\n"
        names = ([f"{array}_i" for array in part] for part in (inputs, outputs))
        task = self.scalar_op.c_code(node.tag.fake_node, f"{name}_rows_", *names, sub)
        suited = " && ".join(f"PyArray_STRIDES({array})[1] == sizeof(dtype_{array})" for array in wide) or "false"
        flat = " && ".join(f"PyArray_IS_C_CONTIGUOUS({array})" for array in whole) if even else "false"
        return f"""
        if ({suited}) {{
            npy_intp n_rows = PyArray_DIMS({outputs[0]})[0], n_columns = PyArray_DIMS({outputs[0]})[1];
            if ({flat}) {{ n_columns *= n_rows; n_rows = 1; }}
            for (npy_intp row = 0; row < n_rows; ++row) {{
                {pointers}
                #pragma omp simd
                for (npy_intp column = 0; column < n_columns; ++column) {{
                    {elements}
                    {task}
                }}
            }}
        }}"""

    def c_code_cache_version_apply(self, node: Any) -> tuple[Any, ...]:
        """Return what makes Theano compile again."""
        version = super().c_code_cache_version_apply(node)
        return (*version, "vectorised", VERSION) if version else ()


class PlainSum(Sum):  # type: ignore[misc]  # Theano has no types
    """The sum of a matrix over its rows, its columns or both, of several elements at a time."""

    def c_compile_args(self) -> list[str]:
        """Return the flags of the loops."""
        return VECTORISE

    def c_headers(self) -> list[str]:
        """Return what the loops need."""
        return ["<vector>"]

    def c_code(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        """Return the loops over a contiguous matrix."""
        (x,), (out,) = inputs, outputs
        number = node.inputs[0].type.dtype_specs()[1]
        held = "double" if self.acc_dtype == "float64" else number
        ndim = node.outputs[0].ndim
        kept = 1 - self.axis[0] if ndim else 0
        total = f"""
                {held} total = 0;
                #pragma omp simd reduction(+:total)
                for (npy_intp column = 0; column < n_columns; ++column) total += x[column];
                to[row] = total;"""
        down = """
                #pragma omp simd
                for (npy_intp column = 0; column < n_columns; ++column) totals[column] += x[column];
                if (row == n_rows - 1)
                    for (npy_intp column = 0; column < n_columns; ++column) to[column] = totals[column];"""
        return f"""
        {{
            PyArrayObject* whole = PyArray_GETCONTIGUOUS({x});
            npy_intp length = PyArray_DIMS({x})[{kept}];
            if (!{out} || !PyArray_IS_C_CONTIGUOUS({out}) || ({ndim} && PyArray_DIMS({out})[0] != length)) {{
                Py_XDECREF({out});
                {out} = (PyArrayObject*)PyArray_ZEROS({ndim}, &length, PyArray_TYPE({x}), 0);
            }}
            if (!whole || !{out}) {{ Py_XDECREF(whole); {sub["fail"]} }}
            npy_intp n_rows = PyArray_DIMS(whole)[0], n_columns = PyArray_DIMS(whole)[1];
            {"n_columns *= n_rows; n_rows = 1;" if not ndim else ""}
            std::vector<{held}> sums({"n_columns" if ndim and self.axis[0] == 0 else "1"});
            {held}* __restrict__ totals = sums.data();
            {number}* __restrict__ to = ({number}*)PyArray_DATA({out});
            if (!n_rows) memset(to, 0, PyArray_NBYTES({out}));
            for (npy_intp row = 0; row < n_rows; ++row) {{
                const {number}* __restrict__ x = (const {number}*)PyArray_DATA(whole) + row * n_columns;
                {down if ndim and self.axis[0] == 0 else total}
            }}
            Py_DECREF(whole);
        }}
        """

    def c_code_cache_version_apply(self, node: Any) -> tuple[Any, ...]:
        """Return what makes Theano compile again."""
        return (VERSION, self.axis, self.acc_dtype)


class CrossEntropy(CrossentropySoftmaxArgmax1HotWithBias):  # type: ignore[misc]  # Theano has no types
    """Negative log-likelihood, softmax and argmax of logits + bias, with a vectorised exponential for float32.

    Where nothing reads the argmax it is not looked for, and zero.
    """

    __props__ = ("finds_largest",)

    def __init__(self, *, finds_largest: bool) -> None:
        super().__init__()
        self.finds_largest = finds_largest

    def c_support_code(self) -> str:
        """Return the exponential."""
        return EXPONENTIAL

    def c_compile_args(self) -> list[str]:
        """Return the flags of the loops."""
        return VECTORISE

    def c_code(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        """Return the loops: of each row the largest logit, the exponentials and their sum."""
        x, bias, target = inputs
        loss, softmax, largest = outputs
        fail = sub["fail"]
        number, _, integer = (variable.type.dtype_specs()[1] for variable in node.inputs)
        kinds = {loss: f"PyArray_TYPE({x})", largest: f"PyArray_TYPE({target})"}
        vectors = "\n".join(
            f"""if (!{out} || PyArray_DIMS({out})[0] != n) {{
                Py_XDECREF({out});
                {out} = (PyArrayObject*)PyArray_SimpleNew(1, PyArray_DIMS({x}), {kind});
                if (!{out}) {{ {fail} }}
            }}"""
            for out, kind in kinds.items()
        )
        return f"""
        {{
            const npy_intp n = PyArray_DIMS({x})[0], m = PyArray_DIMS({x})[1];
            const npy_intp step = PyArray_STRIDES({x})[1] / (npy_intp)sizeof({number});
            const npy_intp bias_step = PyArray_STRIDES({bias})[0] / (npy_intp)sizeof({number});
            if (PyArray_DIMS({bias})[0] != m || PyArray_DIMS({target})[0] != n) {{
                PyErr_SetString(PyExc_ValueError, "as many biases as logits and as many targets as rows are needed");
                {fail}
            }}
            {vectors}
            if (!{softmax} || !PyArray_IS_C_CONTIGUOUS({softmax})
                || PyArray_DIMS({softmax})[0] != n || PyArray_DIMS({softmax})[1] != m) {{
                Py_XDECREF({softmax});
                {softmax} = (PyArrayObject*)PyArray_SimpleNew(2, PyArray_DIMS({x}), PyArray_TYPE({x}));
                if (!{softmax}) {{ {fail} }}
            }}
            for (npy_intp i = 0; i < n; ++i) {{
                const npy_intp y = *({integer}*)PyArray_GETPTR1({target}, i);
                if (y < 0 || y >= m) {{
                    PyErr_SetString(PyExc_ValueError, "y_i value out of bounds");
                    {fail}
                }}
                {number}* __restrict__ p = ({number}*)PyArray_GETPTR2({softmax}, i, 0);
                const {number}* logit = (const {number}*)PyArray_GETPTR2({x}, i, 0);
                const {number}* added = (const {number}*)PyArray_DATA({bias});
                if (step == 1 && bias_step == 1)
                    for (npy_intp j = 0; j < m; ++j) p[j] = logit[j] + added[j];
                else
                    for (npy_intp j = 0; j < m; ++j) p[j] = logit[j * step] + added[j * bias_step];
                // Sixteen maxima at a time; a NaN is passed over here and comes out of the sum.
                {number} highest = p[0], lanes[16];
                for (int k = 0; k < 16; ++k) lanes[k] = highest;
                for (npy_intp j = 0; j + 16 <= m; j += 16)
                    for (int k = 0; k < 16; ++k) lanes[k] = p[j + k] > lanes[k] ? p[j + k] : lanes[k];
                for (npy_intp j = m - m % 16; j < m; ++j) highest = p[j] > highest ? p[j] : highest;
                for (int k = 0; k < 16; ++k) highest = lanes[k] > highest ? lanes[k] : highest;
                npy_intp place = 0;
                {"while (place < m - 1 && p[place] != highest) ++place;" if self.finds_largest else ""}
                const {number} at_target = p[y];
                {number} total = 0;
                #pragma omp simd reduction(+:total)
                for (npy_intp j = 0; j < m; ++j) {{
                    p[j] = vector_exp(p[j] - highest);
                    total += p[j];
                }}
                const {number} scale = 1 / total;
                for (npy_intp j = 0; j < m; ++j) p[j] *= scale;
                *({number}*)PyArray_GETPTR1({loss}, i) = highest - at_target + std::log(total);
                *({integer}*)PyArray_GETPTR1({largest}, i) = place;
            }}
        }}
        """

    def c_code_cache_version(self) -> tuple[int, ...]:
        """Return what makes Theano compile again."""
        return (VERSION,)
