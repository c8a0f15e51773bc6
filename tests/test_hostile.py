"""Hostile input: whatever a file holds, a run ends with a result, rejects or a clear error, in less than 1 GB.

What could end or bloat a process is read in a child, whose largest resident set is asked of the system.
"""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_catalog import clean_files

from pipeline.errors import CatalogError, ModelError
from pipeline.inputs import expand
from pipeline.model import load_model
from pipeline.readers import Wanted, read

MB = 1 << 20
LIMIT = 1000  # MB
GOOD = [{"item_id": f"good {k}", "tags": ["x", "y"], "genre": "AB"[k % 2]} for k in range(4)]
CATALOG = {"levels": "genre", "title": ""}
CHILD = """
import sys
from pathlib import Path
from small_catalog import clean_files
from pipeline.errors import PipelineError

for name in sys.argv[2:]:
    try:
        found = clean_files(Path(sys.argv[1]), catalog={"items": name, "levels": "genre", "title": ""})
        print(name, "cleaned", len(found.items), len(found.rejects))
    except PipelineError as error:
        print(name, "refused", str(error)[:300].replace("\\n", " "))
# Not ru_maxrss: it begins with what the parent had when it forked.
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


def clean_in_child(folder, *names):
    """Return what became of each file, and the megabytes of the child; it must end by itself."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {folders!r}\n{CHILD}"
    command = [sys.executable, "-c", code, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    *told, size = done.stdout.splitlines()
    return [line.removeprefix(f"{name} ") for name, line in zip(names, told, strict=True)], int(size)


def write_lines(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")


def drawn_text(rng):
    """Return text of all planes, controls, marks of direction, lone surrogates, formulas, numbers, or nothing."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(["", " ", "\0", "=1+1", "=cmd|' /C calc'!A0", "-", "@x", "null", "NaN", "1e999", "../../x"])
    if kind == 1:
        return "".join(chr(rng.randrange(0xD800, 0xE000)) for _ in range(rng.randrange(1, 3)))
    if kind == 2:
        return rng.choice(["\u202e", "\u200f", "\u2066", "\ufeff", "\ufdd0", "\ufdd0\ufdd0end"]) + "abc"
    if kind == 3:
        return "".join(chr(rng.randrange(0, 32)) for _ in range(3))
    planes = (rng.randrange(17) * 0x10000 + rng.randrange(0x10000) for _ in range(rng.randrange(1, 9)))
    return "".join(chr(point) for point in planes if not 0xD800 <= point < 0xE000)


def drawn_row(rng, number):
    """Return a row of JSON lines: text, numbers, lists and objects where they do not belong, or no JSON at all."""
    odd = (lambda: rng.randrange(-(10**30), 10**30), lambda: rng.random(), lambda: None, lambda: True)
    nested = (lambda: [drawn_text(rng)], lambda: {drawn_text(rng): [1]}, lambda: [[["a"], None], 7])
    value = lambda: rng.choice((lambda: drawn_text(rng), *odd, *nested))()  # noqa: E731
    if rng.random() < 0.05:
        return rng.choice(["{", "[1]", '"x"', '{"item_id": 1,}', "nul", '{"a":' * 50, "\x7f", '{"tags": "\\ud800"}'])
    tags = [drawn_text(rng) for _ in range(rng.randrange(6))] if rng.random() < 0.8 else value()
    item_id = number if rng.random() < 0.5 else value()
    return {"item_id": item_id, "tags": tags, "genre": rng.choice(["A", "B", None, value()])}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_10_000_drawn_rows_are_kept_or_rejected_each_once(tmp_path, kind):
    rng = random.Random(7)
    rows = [drawn_row(rng, number) for number in range(10_000)]
    if kind == "jsonl":
        write_lines(tmp_path / "items.jsonl", [*GOOD, *rows])
        n_rows = len(GOOD) + sum(bool(str(row).strip()) for row in rows)
    else:
        table = [row if isinstance(row, dict) else {"item_id": row, "tags": [row], "genre": "A"} for row in rows]
        cells = [[f"{row['item_id']}", f"{row['tags']}", f"{row['genre']}"] for row in table]
        clean_cells = [[cell.encode(errors="replace").decode() for cell in row] for row in cells]
        n_rows = len(GOOD) + len(cells)
        if kind == "csv":
            quoted = (",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells)
            good = (f"{row['item_id']},x;y,{row['genre']}" for row in GOOD)
            text = "\n".join(["item_id,tags,genre", *good, *quoted]) + "\n"
            (tmp_path / "items.csv").write_bytes(text.encode(errors="surrogatepass"))
        else:
            columns = zip(*[[row["item_id"], "x;y", row["genre"]] for row in GOOD], *clean_cells, strict=True)
            pq.write_table(pa.table(list(columns), names=["item_id", "tags", "genre"]), tmp_path / "items.parquet")
    found = clean_files(tmp_path, catalog={**CATALOG, "items": f"items.{kind}"})
    n_rejected = sum(reject["scope"] == "item" for reject in found.rejects)
    assert len(found.items) + n_rejected == n_rows == found.statistics["n_rows"]
    assert {row["item_id"] for row in GOOD} <= {item["item_id"] for item in found.items}


def test_what_is_nested_100_000_deep_harms_its_row_only(tmp_path):
    deep = ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000]
    rows = [f'{{"item_id": {k}, "genre": "A", "tags": {value}}}' for k, value in enumerate(deep)]
    write_lines(tmp_path / "deep.jsonl", [*GOOD, *rows, "[" * 100_000, '{"a":' * 100_000])
    (told,), size = clean_in_child(tmp_path, "deep.jsonl")
    assert told.startswith("cleaned")
    assert size < LIMIT


def test_tags_of_1_mb_are_rejected(tmp_path):
    rows = "".join(f"{k},{k}{'x' * MB},{'AB'[k % 2]}\n" for k in range(60))
    (tmp_path / "long.csv").write_text(f"item_id,tags,genre\n{rows}")
    (told,), size = clean_in_child(tmp_path, "long.csv")
    assert told == "refused no item has a tag; see [catalog] tags, tags_column and word_columns"
    assert size < LIMIT


@pytest.mark.parametrize("name", ["many.csv", pytest.param("many.parquet", marks=pytest.mark.slow)])
def test_a_million_tags_on_an_item_are_taken(tmp_path, name):
    many = [f"t{k}" for k in range(1_000_000)]
    if name.endswith("csv"):
        (tmp_path / name).write_text(f"item_id,tags,genre\n1,a,A\n2,{';'.join(many)},B\n")
    else:
        pq.write_table(pa.table({"item_id": [1, 2], "tags": [["a"], many], "genre": ["A", "B"]}), tmp_path / name)
    (told,), size = clean_in_child(tmp_path, name)
    assert told == "cleaned 2 0"
    assert size < LIMIT


def write_parquet(path, tags, **options):
    table = pa.table({"item_id": range(100), "tags": tags, "genre": ["A", "B"] * 50})
    pq.write_table(table, path, compression="zstd", **options)


def write_gzip(path, start):
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(1200):
            file.write(b"x" * MB)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(8 << 40,), dtype="u1", chunks=(MB,))


TEXT = "x" * (16 * MB)
BOMBS = {  # files of few bytes that unpack to more than a gigabyte
    "bomb.csv.gz": lambda path: write_gzip(path, b"item_id,tags,genre\n1,"),
    "bomb.h5": write_hdf5,
    "plain.parquet": lambda path: write_parquet(path, [TEXT] * 100, use_dictionary=False),
    "as_dictionary.parquet": lambda path: write_parquet(path, [TEXT] * 100),
    "in_lists.parquet": lambda path: write_parquet(path, [[TEXT]] * 100),
    "bomb.jsonl.gz": lambda path: write_gzip(path, b'{"item_id": "'),
    "bomb.npz": lambda path: np.savez_compressed(path, np.zeros(100 * MB, np.uint8)),
}


REASONS = {"plain.parquet": "'tags' unpacks", "bomb.h5": "extension '.h5' is not one of"}


@pytest.mark.parametrize("names", [list(BOMBS)[:2], pytest.param(list(BOMBS)[2:], marks=pytest.mark.slow)])
def test_small_files_that_unpack_to_gigabytes_stay_small(tmp_path, names):
    for name in names:
        BOMBS[name](tmp_path / name)
        assert (tmp_path / name).stat().st_size < 8 * MB
    told, size = clean_in_child(tmp_path, *names)
    assert [line.split()[0] for line in told] == ["refused"] * len(names), told
    for name, line in zip(names, told, strict=True):
        assert REASONS.get(name, "") in line
    assert size < LIMIT


def test_an_hdf5_bomb_is_no_model(tmp_path):
    write_hdf5(tmp_path / "bomb.h5")
    with pytest.raises(ModelError, match="does not begin as a model file does"):
        load_model(tmp_path / "bomb.h5")


def damage(content, rng):
    """Return bytes that are cut, or of which some are others."""
    if rng.random() < 0.3:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 6)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def write_damaged(folder, *, n):
    rng = random.Random(11)
    rows = [{"item_id": k, "tags": [f"tag {k % 7}", "x"], "genre": "AB"[k % 2]} for k in range(300)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "whole.parquet", row_group_size=100)
    write_lines(folder / "whole.jsonl", rows)
    (folder / "whole.jsonl.gz").write_bytes(gzip.compress((folder / "whole.jsonl").read_bytes()))
    names = []
    for kind in ("parquet", "jsonl", "jsonl.gz"):
        content = (folder / f"whole.{kind}").read_bytes()
        for k in range(n):
            names.append(f"damaged-{k}.{kind}")
            (folder / names[-1]).write_bytes(damage(content, rng))
    return names


@pytest.mark.parametrize("n", [25, pytest.param(600, marks=pytest.mark.slow)])
def test_a_file_cut_or_changed_anywhere_gives_rejects_or_a_clear_error(tmp_path, n):
    told, size = clean_in_child(tmp_path, *write_damaged(tmp_path, n=n))
    assert len(told) == 3 * n
    assert all(line.startswith(("cleaned", "refused")) for line in told)
    assert size < LIMIT


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a\0b", "..", "x" * 5000])
def test_ids_and_labels_are_no_paths(tmp_path, name):
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    write_lines(folder / "items.jsonl", [*GOOD, {"item_id": name, "tags": [name], "genre": "A"}])
    before = set(tmp_path.rglob("*"))
    found = clean_files(folder, catalog={**CATALOG, "items": "items.jsonl"})
    assert len(found.items) == 5
    assert {path for path in tmp_path.rglob("*") if found.folder not in (path, *path.parents)} == before


def test_a_path_of_the_settings_that_is_no_path_is_an_absent_file():
    for path in ("\0.csv", "x" * 5000 + ".csv", "x" * 5000):
        assert expand(path) == (path,)
        with pytest.raises(CatalogError):
            list(read(path, Wanted(("a",))))
