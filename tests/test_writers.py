"""The writers: Parquet and HDF5 hold the same, and their bytes do not depend on how the rows came."""

import itertools

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import writers
from pipeline.writers import HDF5Writer, ParquetWriter

LABEL = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("item_id", pa.int64()),
        ("title", pa.string()),
        ("genre", LABEL),
        ("genre_probability", pa.float32()),
        ("path", pa.list_(LABEL)),
        ("best_paths", pa.list_(pa.list_(LABEL))),
        ("best_path_probabilities", pa.list_(pa.float32())),
        ("given_path", pa.list_(pa.string())),
    ]
)
WIDTHS = {"path": (2,), "best_paths": (2, 2), "best_path_probabilities": (2,), "given_path": (2,)}
NAMES = pa.array(["Drama", "Horror", "Zombies"])
FACTS = {"model": "f00d", "run": "a run"}


def labels(values):
    index = {name: code for code, name in enumerate(NAMES.to_pylist())}
    codes = pa.array([None if value is None else index[value] for value in values], pa.int32())
    return pa.DictionaryArray.from_arrays(codes, NAMES)


def lists(values, inner):
    lengths = [0, *np.cumsum([len(value) for value in values])]
    return pa.ListArray.from_arrays(pa.array(lengths, pa.int32()), inner([x for value in values for x in value]))


def batch_of(rows):
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    ids, titles, paths, best, given_paths = columns[:5]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(ids, pa.int64()),
            pa.array(titles, pa.string()),
            labels([path[0] if path else None for path in paths]),
            pa.array([0.5 + 0.001 * k for k in ids], pa.float32()),
            lists(paths, labels),
            lists(best, lambda inner: lists(inner, labels)),
            pa.array([[0.75, 0.25]] * len(ids), pa.list_(pa.float32())),
            pa.array(given_paths, pa.list_(pa.string())),
        ],
        schema=SCHEMA,
    )


def make_rows(n):
    paths = [("Horror", "Zombies"), ("Drama",), ()]
    given_paths = [["Horror", "Ghosts"], None, [], ["Drama"]]
    return [
        (k, None if k % 3 == 2 else f"Film {k}", paths[k % 3], (paths[k % 3], paths[(k + 1) % 3]), given_paths[k % 4])
        for k in range(n)
    ]


def write_both(folder, batches, *, part_items=1000):
    folder.mkdir()
    with (
        ParquetWriter(folder / "scores.parquet", SCHEMA, part_items=part_items, metadata=FACTS) as parquet,
        HDF5Writer(folder / "scores.h5", SCHEMA, widths=WIDTHS, metadata=FACTS) as hdf5,
    ):
        for batch in batches:
            parquet.write(batch)
            hdf5.write(batch)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_hdf5(path):
    """Return the rows of scores.h5 as Parquet gives them; what Parquet calls null is '' here."""
    with h5py.File(path) as file:
        names = file["names"].asstr()[:]
        path_of = lambda codes: [names[code] for code in codes if code]  # noqa: E731 - one line is enough
        return {
            "item_id": file["item_id"][:].tolist(),
            "title": file["title"].asstr()[:].tolist(),
            "genre": [names[code] for code in file["genre"][:]],
            "genre_probability": file["genre_probability"][:].tolist(),
            "path": [path_of(codes) for codes in file["path"][:]],
            "best_paths": [[path_of(codes) for codes in paths] for paths in file["best_paths"][:]],
            "best_path_probabilities": file["best_path_probabilities"][:].tolist(),
            "given_path": [path_of(codes) for codes in file["given_path"][:]],
        }


def test_both_hold_what_was_written(tmp_path):
    rows = make_rows(10)
    folder = write_both(tmp_path / "scores", [batch_of(rows)])
    table = pq.read_table(folder / "scores.parquet").to_pydict()
    assert table == pa.Table.from_batches([batch_of(rows)]).to_pydict()
    for name in ("title", "genre"):
        table[name] = [value or "" for value in table[name]]
    table["given_path"] = [value or [] for value in table["given_path"]]
    assert read_hdf5(folder / "scores.h5") == table


def test_people_read_strings_from_parquet(tmp_path):
    folder = write_both(tmp_path / "scores", [batch_of(make_rows(3))])
    schema = pq.read_schema(folder / "scores.parquet" / "part-00000.parquet")
    assert schema.field("genre").type == pa.string()
    assert schema.field("path").type.value_type == pa.string()
    assert schema.metadata == {b"model": b"f00d", b"run": b"a run"}


def columns_of(folder):
    group = pq.read_metadata(folder / "scores.parquet" / "part-00000.parquet").row_group(0)
    return {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}


def test_labels_are_dictionary_encoded_and_what_hardly_repeats_is_not(tmp_path):
    columns = columns_of(write_both(tmp_path / "scores", [batch_of(make_rows(30))]))
    encoded = {name for name, column in columns.items() if "RLE_DICTIONARY" in column.encodings}
    given, best = "given_path.list.element", "best_paths.list.element.list.element"
    assert encoded == {"genre", "path.list.element", best, given}


def test_every_column_has_statistics_and_an_index_of_its_pages(tmp_path):
    columns = columns_of(write_both(tmp_path / "scores", [batch_of(make_rows(30))]))
    for name, column in columns.items():
        assert column.is_stats_set, name
        assert column.has_offset_index, name
        assert column.has_column_index, name
    statistics = columns["item_id"].statistics
    assert (statistics.min, statistics.max, statistics.null_count) == (0, 29, 0)
    statistics = columns["genre"].statistics
    # Bounds: Arrow may count a name of the dictionary that no row has.
    assert statistics.min <= "Drama" < "Horror" <= statistics.max
    assert statistics.null_count == 10


def test_the_first_name_of_hdf5_is_no_label(tmp_path):
    folder = write_both(tmp_path / "scores", [batch_of(make_rows(4))])
    with h5py.File(folder / "scores.h5") as file:
        assert file["names"].asstr()[0] == ""
        assert file["path"][:].tolist() == [[2, 3], [1, 0], [0, 0], [2, 3]]
        assert dict(file.attrs) == FACTS


def test_a_part_has_as_many_rows_as_it_may(tmp_path):
    folder = write_both(tmp_path / "scores", [batch_of(make_rows(25))], part_items=10)
    parts = sorted((folder / "scores.parquet").iterdir())
    assert [path.name for path in parts] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert [pq.read_metadata(path).num_rows for path in parts] == [10, 10, 5]
    assert pq.read_table(folder / "scores.parquet")["item_id"].to_pylist() == list(range(25))


def test_full_parts_leave_no_empty_one_behind(tmp_path):
    folder = write_both(tmp_path / "scores", [batch_of(make_rows(20))], part_items=10)
    assert len(list((folder / "scores.parquet").iterdir())) == 2


@pytest.mark.parametrize("batches", [[], [batch_of([])]])
def test_no_rows_make_files_without_rows(tmp_path, batches):
    folder = write_both(tmp_path / "scores", batches)
    table = pq.read_table(folder / "scores.parquet")
    assert (table.num_rows, table.column_names) == (0, SCHEMA.names)
    assert read_hdf5(folder / "scores.h5")["best_paths"] == []


@given(cuts=st.lists(st.integers(0, 50), max_size=6))
def test_bytes_do_not_depend_on_the_batches(tmp_path_factory, cuts):
    rows = make_rows(50)
    folder = tmp_path_factory.mktemp("cut")
    edges = [0, *sorted(cuts), 50]
    batches = [batch_of(rows[start:end]) for start, end in itertools.pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers, "ROW_GROUP", 7)
        patch.setattr(writers, "BLOCK", 16)
        whole = write_both(folder / "whole", [batch_of(rows)], part_items=17)
        assert contents(write_both(folder / "parts", batches, part_items=17)) == contents(whole)


def test_ids_may_be_strings_and_hdf5_cannot_hold_nul(tmp_path):
    schema = pa.schema([("item_id", pa.string()), ("genre", LABEL)])
    genres = pa.array(["Film\0noir", None, "Drama"]).dictionary_encode()
    batch = pa.RecordBatch.from_arrays([pa.array(["tt001", "a\0b", "\N{SNOWMAN}"]), genres], schema=schema)
    with HDF5Writer(tmp_path / "scores.h5", schema, widths={}, metadata={}) as writer:
        writer.write(batch)
    with h5py.File(tmp_path / "scores.h5") as file:
        assert file["item_id"].asstr()[:].tolist() == ["tt001", "a\N{REPLACEMENT CHARACTER}b", "\N{SNOWMAN}"]
        assert file["names"].asstr()[:][file["genre"][:]].tolist() == ["Film\N{REPLACEMENT CHARACTER}noir", "", "Drama"]


def test_numbers_are_compressed_in_chunks_of_many_rows(tmp_path):
    folder = write_both(tmp_path / "scores", [batch_of(make_rows(3))])
    group = pq.read_metadata(folder / "scores.parquet" / "part-00000.parquet").row_group(0)
    assert {group.column(k).compression for k in range(group.num_columns)} == {"ZSTD"}
    with h5py.File(folder / "scores.h5") as file:
        for name in ("item_id", "genre", "genre_probability", "best_paths"):
            assert (file[name].compression, file[name].shuffle, file[name].chunks[0]) == ("gzip", True, 16_384), name
            assert file[name].fletcher32, name


def test_a_page_of_parquet_that_changed_is_noticed(tmp_path):
    path = write_both(tmp_path / "scores", [batch_of(make_rows(3))]) / "scores.parquet" / "part-00000.parquet"
    ids = pq.read_metadata(path).row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[(ids.dictionary_page_offset or ids.data_page_offset) + ids.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_chunk_of_hdf5_that_changed_is_noticed(tmp_path):
    path = write_both(tmp_path / "scores", [batch_of(make_rows(3))]) / "scores.h5"
    with h5py.File(path) as file:
        place = file["genre_probability"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 3] ^= 1
    path.write_bytes(content)
    with h5py.File(path) as file, pytest.raises(OSError, match="filter"):
        file["genre_probability"][:]


def test_after_a_failure_the_files_are_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "ROW_GROUP", 2)
    with pytest.raises(RuntimeError, match="in the middle"):  # noqa: SIM117 - the order matters
        with (
            HDF5Writer(tmp_path / "scores.h5", SCHEMA, widths=WIDTHS, metadata=FACTS) as hdf5,
            ParquetWriter(tmp_path / "scores.parquet", SCHEMA, part_items=10, metadata=FACTS) as parquet,
        ):
            hdf5.write(batch_of(make_rows(3)))
            parquet.write(batch_of(make_rows(3)))
            raise RuntimeError("in the middle")
    with h5py.File(tmp_path / "scores.h5", "r+") as file:
        assert file["item_id"].shape == (0,)
    h5py.File(tmp_path / "scores.h5", "w").close()  # refused as long as it is open anywhere
    assert pq.read_metadata(tmp_path / "scores.parquet" / "part-00000.parquet").num_rows == 2
