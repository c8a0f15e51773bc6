"""Stage 1: the rows of JSON lines, an object a line, by DuckDB's JSON functions: a bad line harms no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CatalogError
from pipeline.readers import Broken, Rows, Wanted, make_table, numbers, one_line
from pipeline.streams import MARKED, TextStream, unmark

BLOCK = 8 << 20  # bytes parsed at a time
MAX_LINE = 64 << 20  # bytes of the longest line

NESTED = "an object or a list stands where text belongs"


def read_json(stream: TextStream, wanted: Wanted) -> Iterator[Rows]:
    """Give the rows of a file of JSON lines; a blank line is no row. Raises CatalogError for one large array."""
    import duckdb

    if stream.head(1 << 16).lstrip()[:1] == "[":
        raise CatalogError(f"{stream.path} line 1: begins with '['; one JSON object a line is needed")
    row, line = 1, 1
    try:
        with duckdb.connect() as connection:
            for lines in _lines(stream):
                blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(lines)), 0)
                is_row = ~blank.to_numpy(zero_copy_only=False)
                places = pa.array(np.flatnonzero(is_row))
                number = numbers(line, len(lines))[is_row]
                yield _parse(connection, lines.take(places), numbers(row, len(places)), number, wanted)
                row, line = row + len(places), line + len(lines)
    except duckdb.Error as error:
        raise CatalogError(f"{stream.path} after line {line - 1}: cannot be read ({one_line(error)})") from None


def _lines(stream: TextStream) -> Iterator[Any]:
    """Give the lines of a text as string arrays, found by NumPy."""
    rest = b""
    while block := stream.read(BLOCK):
        text = rest + block
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 10) + 1
        if len(ends):
            yield _strings(text, np.concatenate([[0], ends]))
            text = text[ends[-1] :]
        if len(text) > MAX_LINE:
            raise CatalogError(f"{stream.path}: a line is over {MAX_LINE >> 20} MB; one JSON object a line is needed")
        rest = text
    if rest:
        yield _strings(rest, np.array([0, len(rest)]))


def _strings(text: bytes, offsets: Any) -> Any:
    buffers = [None, pa.py_buffer(offsets.astype(np.int32).tobytes()), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def _parse(connection: Any, lines: Any, row: Any, line: Any, wanted: Wanted) -> Rows:
    """Return the rows of some lines; a line that is no JSON object, or not UTF-8, comes apart."""
    connection.register("lines", pa.table({"raw": lines}))
    kinds = "SELECT CASE WHEN json_valid(raw) THEN json_type(raw) ELSE '' END AS kind FROM lines"
    kind = connection.sql(kinds).to_arrow_table()["kind"]
    is_object = pc.equal(kind, "OBJECT").to_numpy()
    bad_bytes = pc.match_substring_regex(lines, MARKED).to_numpy(zero_copy_only=False)
    good = np.flatnonzero(is_object & ~bad_bytes)
    broken = [
        Broken(
            int(row[place]),
            int(line[place]),
            unmark(lines[place].as_py()).rstrip("\r\n"),
            "not UTF-8" if bad_bytes[place] else "not valid JSON" if not kind[place].as_py() else "not a JSON object",
        )
        for place in np.flatnonzero(~is_object | bad_bytes)
    ]
    found = _extract(connection, lines.take(pa.array(good)), wanted)
    nested = pc.is_valid(found["nested"]).to_numpy()
    broken += [
        Broken(int(row[place]), int(line[place]), lines[place].as_py().rstrip("\r\n"), f"{name}: {NESTED}")
        for place, name in zip(good[nested], found["nested"].drop_null().to_pylist(), strict=True)
    ]
    good, found = good[~nested], found.filter(pa.array(~nested))
    columns = {name: found[f"value{k}"] for k, name in enumerate(wanted.columns)}
    kinds_of = {name: set(pc.unique(found[f"kind{k}"]).to_pylist()) for k, name in enumerate(wanted.columns)}
    known = tuple(name for name in wanted.columns if kinds_of[name] - {None})
    if len(known) < len(wanted.columns):
        known = tuple(dict.fromkeys((*_keys(connection), *known)))
    text_ids = bool(kinds_of.get(wanted.id_column, set()) - {None, "NULL", "UBIGINT", "BIGINT"})
    return Rows(make_table(row[good], line[good], columns, found["lists"]), tuple(broken), known, text_ids)


def _extract(connection: Any, lines: Any, wanted: Wanted) -> Any:
    """Return value and type of each column, the list column where its value is an array, and what is nested too deep.

    `nested` names the first column that holds an object, or an array where text or single tags belong.
    """
    connection.register("objects", pa.table({"raw": lines}))
    parts, nested, lists = [], [], "NULL::VARCHAR[]"
    for k, name in enumerate(wanted.columns):
        value, kind = f"values[{k + 1}]", f"kinds[{k + 1}]"
        if name == wanted.list_column:
            inner = f"list_transform(from_json({value}, '[\"JSON\"]'), lambda x: json_type(x))"
            deep = f"{kind} = 'ARRAY' AND list_has_any({inner}, ['OBJECT', 'ARRAY'])"
            nested.append(f"WHEN {kind} = 'OBJECT' OR ({deep}) THEN $name{k}")
            lists = f"CASE WHEN {kind} = 'ARRAY' THEN from_json({value}, '[\"VARCHAR\"]') END"
            value = f"CASE WHEN {kind} = 'ARRAY' THEN NULL ELSE {value} END"
        elif name not in wanted.vectors:
            nested.append(f"WHEN {kind} IN ('OBJECT', 'ARRAY') THEN $name{k}")
        parts.append(f"{value} AS value{k}, {kind} AS kind{k}")
    query = f"""
        SELECT {", ".join(parts)}, {lists} AS lists,
            {f"CASE {' '.join(nested)} END" if nested else "NULL::VARCHAR"} AS nested
        FROM (SELECT json_extract_string(raw, $pointers) AS values, json_type(raw, $pointers) AS kinds FROM objects)
    """
    named = {f"name{k}": name for k, name in enumerate(wanted.columns) if name not in wanted.vectors}
    pointers = [_pointer(name) for name in wanted.columns]
    return connection.sql(query, params={"pointers": pointers, **named}).to_arrow_table().combine_chunks()


def _keys(connection: Any) -> list[str]:
    """Return the keys of the first object, for a suggestion."""
    first = connection.execute("SELECT json_keys(raw) FROM objects LIMIT 1").fetchall()
    return list(first[0][0]) if first else []


def _pointer(name: str) -> str:
    """Return the JSON pointer of a key.

    >>> _pointer("a/b")
    '/a~1b'
    """
    return "/" + name.replace("~", "~0").replace("/", "~1")
