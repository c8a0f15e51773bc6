"""Dense columns: numbers by the quantiles of training, vectors as they are, what is missing said."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_folders import read
from small_catalog import clean_files

from pipeline.config import Settings
from pipeline.dense import DenseFitter, Number, Vector, load_column
from pipeline.errors import FeatureError
from pipeline.features import FeatureTransform, build

HEADER = "item_id,title,tags,genre,theme,year,plot\n"
ROWS = [
    "1,Dawn,zombies,Horror,Zombies,1978,[0.5 -1]",
    '2,Day,zombies,Horror,Zombies,,"0.25,2"',
    "3,Manhattan,city,Comedy,City,1980,",
    "4,Annie,city,Comedy,City,seventies,[1 1]",
    "5,Sleeper,city,Comedy,City,1979,[1 x]",
]


def settings(**features) -> Settings:
    catalog = {"numbers": "year", "vectors": "plot", "levels": "genre, theme"}
    return Settings(catalog=catalog, features={"blocks": "tags", **features})


def table(years, plots) -> pa.Table:
    columns = {"tags": pa.array([["a"]] * len(years)), "dense.year": pa.array(years, pa.float64())}
    return pa.table({**columns, "dense.plot": pa.array(plots, pa.list_(pa.float32()))})


def test_a_number_stands_where_it_stood_among_those_of_training():
    number = Number.fit("year", np.array([0.0, 10, 20, 30, 1000]))
    made = number.transform(pa.array([0, 5, 10, 30, 515, 1000, 5000, -7], pa.int64()))
    np.testing.assert_allclose(made[:, 0], [0, 0.125, 0.25, 0.75, 0.875, 1, 1, 0], atol=1e-6)
    assert made[:, 1].tolist() == [0] * 8


def test_a_value_that_half_of_training_has_stands_in_the_middle_of_its_quantiles():
    number = Number.fit("price", np.array([0.0] * 51 + [1.0] * 50))
    np.testing.assert_allclose(number.transform(pa.array([0.0, 1.0]))[:, 0], [0.25, 0.755], atol=1e-6)
    assert Number.fit("price", np.array([7.0])).transform(pa.array([7.0])).tolist() == [[0.5, 0]]


def test_missing_numbers_and_vectors_are_zeros_with_a_one_beside_them():
    transform = FeatureTransform.fit(table([1.0, 2.0, None], [[1, 2], None, [3, 4]]), settings())
    assert transform.n_dense == 5
    assert transform.dense_names() == [
        *("number:year", "number:year missing"),
        *("vector:plot:0", "vector:plot:1", "vector:plot missing"),
    ]
    made = transform.transform(table([None, 2.0], [[0.5, -1], None])).dense
    assert made.tolist() == [[0, 1, 0.5, -1, 0], [1, 0, 0, 0, 1]]
    assert made.dtype == np.float32


def test_columns_that_training_never_saw_filled_are_missing_only():
    transform = FeatureTransform.fit(table([None], [None]), settings())
    assert transform.transform(table([3.0], [[1]])).dense.tolist() == [[0, 0, 0]]


def test_neither_order_nor_batches_change_a_quantile():
    years = np.random.default_rng(3).normal(size=500).round(2)
    fitters = [DenseFitter(numbers=("year",), vectors=()) for _ in range(2)]
    fitters[0].add(lambda _: pa.array(years))
    for part in np.array_split(years[::-1], 7):
        fitters[1].add(lambda _, part=part: pa.array(part))
    one, other = (fitter.columns()[0].transform(pa.array(years)) for fitter in fitters)
    assert one.tolist() == other.tolist()
    assert one.min() == 0 and one.max() == 1


@pytest.mark.parametrize(
    ("years", "plots", "message"),
    [
        ([1.0], [[1, 2, 3]], r"column 'dense.plot' row 0 has 3 numbers; training had 2"),
        ([1.0], [[1, None]], "holds a number that is missing or not finite"),
        ([1.0], [[1, np.inf]], "holds a number that is missing or not finite"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(years, plots, message):
    transform = FeatureTransform.fit(table([1.0], [[1, 2]]), settings())
    with pytest.raises(FeatureError, match=message):
        transform.transform(table(years, plots))


def test_vectors_of_two_widths_are_refused():
    with pytest.raises(FeatureError, match=r"vectors of \[2, 3\] numbers, not of one width"):
        FeatureTransform.fit(table([1.0, 2.0], [[1, 2], [1, 2, 3]]), settings())


def test_columns_of_another_type_are_refused():
    with pytest.raises(FeatureError, match=r"column 'dense.year' holds string, not numbers"):
        Number.fit("year", np.ones(1)).transform(pa.array(["1"]))
    with pytest.raises(FeatureError, match=r"column 'dense.plot' is double, not a list of numbers"):
        Vector("plot", 2).transform(pa.array([1.0]))


def test_a_saved_column_comes_back_and_a_damaged_one_is_refused(tmp_path):
    with h5py.File(tmp_path / "dense.h5", "w") as file:
        for column in (Number.fit("year", np.arange(9.0)), Vector("plot", 2)):
            group = file.create_group(column.name)
            column.save(group)
            assert load_column(group).names() == column.names()
        for facts in ('{"name": "x"}', "[]", '{"kind": "vector", "name": "x", "width": -1}'):
            file["plot"].attrs["facts"] = facts
            with pytest.raises(FeatureError):
                load_column(file["plot"])


def test_cleaning_carries_numbers_and_vectors_and_rejects_what_is_neither(tmp_path):
    (tmp_path / "items.csv").write_text(HEADER + "\n".join(ROWS) + "\n")
    found = clean_files(tmp_path, catalog={"numbers": "year", "vectors": "plot"})
    assert [(item["dense.year"], item["dense.plot"]) for item in found.items] == [
        (1978, [0.5, -1]),
        (None, [0.25, 2]),
        (1980, None),
    ]
    assert [reason for _, _, reason in found.reasons] == ["year is not a number", "plot is not a vector"]


def test_parquet_gives_the_same_numbers_and_vectors_as_text(tmp_path):
    plots = pa.array([[0.5, -1], [0.25, 2], None, [1, None]], pa.list_(pa.float32()))
    columns = {"item_id": [1, 2, 3, 4], "title": ["a", "b", "c", "d"], "tags": [["x"]] * 4, "plot": plots}
    labels = {"genre": ["A", "A", "B", "B"], "theme": ["a", "a", "b", "b"]}
    pq.write_table(pa.table({**columns, **labels, "year": [1978, np.nan, 1980.5, 3]}), tmp_path / "items.parquet")
    found = clean_files(tmp_path, catalog={"items": "items.parquet", "numbers": "year", "vectors": "plot"})
    assert [item["dense.plot"] for item in found.items] == [[0.5, -1], [0.25, 2], None]
    assert [item["dense.year"] for item in found.items] == [1978, None, 1980.5]
    assert found.reasons == [("item", 4, "plot is not a vector")]


def test_shards_hold_the_dense_columns(tmp_path):
    (tmp_path / "items.csv").write_text(HEADER + "\n".join(ROWS[:3]) + "\n")
    found = clean_files(tmp_path, catalog={"numbers": "year", "vectors": "plot"})
    (tmp_path / "features").mkdir()
    build(settings(), found.folder, tmp_path / "features")
    data = read(tmp_path / "features")
    assert data.widths.n_dense == 5
    wanted = [[0, 0, 0.5, -1, 0], [0, 1, 0.25, 2, 0], [1, 0, 0, 0, 1]]
    assert sorted(data.train.dense.tolist()) == sorted(wanted)
