"""Rows in C for Theano: rows added to a table, and the product of a sparse matrix."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from scipy import sparse
from theano import gof
from theano.tensor.subtensor import AdvancedIncSubtensor1, AdvancedSubtensor1

VERSION = zlib.crc32(Path(__file__).read_bytes())  # what was compiled of another state of this file is not taken
# None of these changes a value. Not -ffast-math: it would lose NaN, by which divergence is found, and the exponential.
# Nor may a loop begin with single elements until an address is even: the order of a sum would hang on the address.
VECTORISE = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "--param=vect-max-peeling-for-alignment=0",
]


class AddRows(AdvancedIncSubtensor1):  # type: ignore[misc]  # Theano has no types
    """table[index] += change (or = change), row by row; Theano's own takes ten times as long."""

    def c_support_code(self) -> str:
        """Return nothing: the loops need no iterator of NumPy."""
        return ""

    def c_compile_args(self) -> list[str]:
        """Return the flags of the loops."""
        return VECTORISE

    def c_code(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        """Return the loops; the index is checked, negative ones count from the end as in NumPy."""
        table, change, index = inputs
        (out,) = outputs
        operator = "=" if self.set_instead_of_inc else "+="
        fail = sub["fail"]
        number, _, integer = (variable.type.dtype_specs()[1] for variable in node.inputs)
        if self.inplace:
            own = f"if ({table} != {out}) {{ Py_XDECREF({out}); Py_INCREF({table}); {out} = {table}; }}"
        else:
            own = f"Py_XDECREF({out}); {out} = (PyArrayObject*)PyArray_NewCopy({table}, NPY_CORDER);"
        return f"""
        {own}
        if (!{out}) {{ {fail} }}
        {{
            const npy_intp n_rows = PyArray_DIMS({out})[0], n_columns = PyArray_DIMS({out})[1];
            const npy_intp n = PyArray_DIMS({index})[0];
            const npy_intp to = PyArray_STRIDES({out})[1], from = PyArray_STRIDES({change})[1];
            if (PyArray_DIMS({change})[0] != n || PyArray_DIMS({change})[1] != n_columns) {{
                PyErr_SetString(PyExc_ValueError, "rows as many as the index and as wide as the table are needed");
                {fail}
            }}
            for (npy_intp i = 0; i < n; ++i) {{
                npy_intp row = *({integer}*)((char*)PyArray_DATA({index}) + i * PyArray_STRIDES({index})[0]);
                if (row < 0) row += n_rows;
                if (row < 0 || row >= n_rows) {{
                    PyErr_Format(PyExc_IndexError, "row %ld is outside a table of %ld", (long)row, (long)n_rows);
                    {fail}
                }}
                char* target = (char*)PyArray_DATA({out}) + row * PyArray_STRIDES({out})[0];
                const char* source = (const char*)PyArray_DATA({change}) + i * PyArray_STRIDES({change})[0];
                if (to == sizeof({number}) && from == sizeof({number})) {{
                    {number}* __restrict__ t = ({number}*)target;
                    const {number}* __restrict__ s = (const {number}*)source;
                    for (npy_intp j = 0; j < n_columns; ++j) t[j] {operator} s[j];
                }} else {{
                    for (npy_intp j = 0; j < n_columns; ++j)
                        *({number}*)(target + j * to) {operator} *(const {number}*)(source + j * from);
                }}
            }}
        }}
        """

    def c_code_cache_version(self) -> tuple[int, ...]:
        """Return what makes Theano compile again."""
        return (VERSION,)


class TakeRows(AdvancedSubtensor1):  # type: ignore[misc]  # Theano has no types
    """table[index], row by row; the rows of a large table are asked of the memory before they are needed."""

    def c_support_code(self) -> str:
        """Return nothing."""
        return ""

    def c_compile_args(self) -> list[str]:
        """Return the flags of the loops."""
        return VECTORISE

    def c_code(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        """Return the loops; the index is checked, negative ones count from the end as in NumPy."""
        table, index = inputs
        (out,) = outputs
        fail = sub["fail"]
        integer = node.inputs[1].type.dtype_specs()[1]
        return f"""
        {{
            PyArrayObject* whole = PyArray_GETCONTIGUOUS({table});
            if (!whole) {{ {fail} }}
            const npy_intp n_rows = PyArray_DIMS(whole)[0], n = PyArray_DIMS({index})[0];
            const npy_intp size = PyArray_STRIDES(whole)[0];
            npy_intp shape[2] = {{n, PyArray_DIMS(whole)[1]}};
            if (!{out} || !PyArray_IS_C_CONTIGUOUS({out}) || PyArray_DIMS({out})[0] != shape[0]
                || PyArray_DIMS({out})[1] != shape[1]) {{
                Py_XDECREF({out});
                {out} = (PyArrayObject*)PyArray_SimpleNew(2, shape, PyArray_TYPE(whole));
            }}
            npy_intp wrong = -1;
            const char* from = (const char*)PyArray_DATA(whole);
            const char* places = (const char*)PyArray_DATA({index});
            const npy_intp step = PyArray_STRIDES({index})[0];
            for (npy_intp i = 0; {out} && i < n; ++i) {{
                npy_intp row = *(const {integer}*)(places + i * step);
                if (row < 0) row += n_rows;
                if (row < 0 || row >= n_rows) {{ wrong = i; break; }}
                if (i + 16 < n) {{
                    const char* later = from + *(const {integer}*)(places + (i + 16) * step) * size;
                    for (npy_intp byte = 0; byte < size && byte < 512; byte += 64) __builtin_prefetch(later + byte);
                }}
                memcpy((char*)PyArray_DATA({out}) + i * size, from + row * size, size);
            }}
            Py_DECREF(whole);
            if (wrong >= 0) PyErr_Format(PyExc_IndexError, "the index leaves a table of %ld rows", (long)n_rows);
            if (wrong >= 0 || !{out}) {{ {fail} }}
        }}
        """

    def c_code_cache_version(self) -> tuple[int, ...]:
        """Return what makes Theano compile again."""
        return (VERSION,)


class SparseProduct(gof.Op):  # type: ignore[misc]  # Theano has no types
    """The product of a compressed sparse matrix and a dense one, without the transposes and checks of SciPy.

    Each line of the sparse matrix (a row of CSR, a column of CSC) holds indices and data from indptr[line] up to
    indptr[line + 1]. Gathering, line i of the result is the sum of data * dense[indices]; scattering, data * dense[i]
    is added to the result's rows `indices`, of which there are n_rows.
    """

    __props__ = ("scatters",)

    def __init__(self, *, scatters: bool) -> None:
        self.scatters = scatters

    def make_node(self, data: Any, indices: Any, indptr: Any, n_rows: Any, dense: Any) -> Any:
        """Return the node."""
        return gof.Apply(self, [data, indices, indptr, n_rows, dense], [dense.type()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        """Compute it by SciPy, where there is no compiler."""
        data, indices, indptr, n_rows, dense = inputs
        shape = (len(indptr) - 1, int(n_rows) if self.scatters else len(dense))
        lines = sparse.csr_matrix((data, indices, indptr), shape=shape)
        outputs[0][0] = (lines.T if self.scatters else lines) @ dense

    def c_compile_args(self) -> list[str]:
        """Return the flags of the loops."""
        return VECTORISE

    def c_code(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        """Return the loops; every index is checked."""
        given = dict(zip(("data", "indices", "indptr", "n_rows", "dense"), inputs, strict=True))
        (out,) = outputs
        fail = sub["fail"]
        number = node.inputs[4].type.dtype_specs()[1]
        to, of = ("place", "line") if self.scatters else ("line", "place")
        n_out = f"*(npy_int32*)PyArray_DATA({given['n_rows']})" if self.scatters else "n_lines"
        n_places = "shape[0]" if self.scatters else f"PyArray_DIMS({given['dense']})[0]"
        own = "\n".join(
            f"PyArrayObject* {name} = PyArray_GETCONTIGUOUS({given[name]});"
            for name in ("data", "indices", "indptr", "dense")
        )
        return f"""
        {{
            {own}
            const npy_intp n_lines = PyArray_DIMS(indptr)[0] - 1, n_columns = PyArray_DIMS(dense)[1];
            npy_intp shape[2] = {{{n_out}, n_columns}};
            bool right = PyArray_DIMS(dense)[0] >= {"n_lines" if self.scatters else "0"};
            if ({out} && PyArray_IS_C_CONTIGUOUS({out}) && PyArray_DIMS({out})[0] == shape[0]
                && PyArray_DIMS({out})[1] == n_columns) {{
                memset(PyArray_DATA({out}), 0, PyArray_NBYTES({out}));
            }} else {{
                Py_XDECREF({out});
                {out} = (PyArrayObject*)PyArray_ZEROS(2, shape, PyArray_TYPE(dense), 0);
            }}
            if (right && {out}) {{
                const npy_int32* begin = (const npy_int32*)PyArray_DATA(indptr);
                const npy_int32* index = (const npy_int32*)PyArray_DATA(indices);
                const {number}* factor = (const {number}*)PyArray_DATA(data);
                for (npy_intp line = 0; right && line < n_lines; ++line) {{
                    for (npy_intp entry = begin[line]; entry < begin[line + 1]; ++entry) {{
                        const npy_intp place = index[entry];
                        if (place < 0 || place >= {n_places}) {{ right = false; break; }}
                        {number}* __restrict__ t = ({number}*)PyArray_DATA({out}) + {to} * n_columns;
                        const {number}* __restrict__ s = (const {number}*)PyArray_DATA(dense) + {of} * n_columns;
                        const {number} by = factor[entry];
                        for (npy_intp column = 0; column < n_columns; ++column) t[column] += by * s[column];
                    }}
                }}
            }}
            Py_DECREF(data); Py_DECREF(indices); Py_DECREF(indptr); Py_DECREF(dense);
            if (!right) PyErr_SetString(PyExc_IndexError, "sparse and dense matrix do not fit each other");
            if (!right || !{out}) {{ {fail} }}
        }}
        """

    def c_code_cache_version(self) -> tuple[int, ...]:
        """Return what makes Theano compile again."""
        return (VERSION,)
