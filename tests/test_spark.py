"""Stages on Spark: the bytes of the local engine, whatever becomes of executors, which have only what scoring needs."""

import os
import random
import signal
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_model import AtFirst, make_items, make_model
from spark_session import executors, two_executors, why_not

from pipeline import artifacts, digests
from pipeline.catalog import write_transform
from pipeline.config import Settings, make_settings
from pipeline.errors import ModelError, WorkerError
from pipeline.features import Fitter
from pipeline.identity import significant
from pipeline.progress import SILENT
from pipeline.score_catalog import Effort, score
from tasks.retries import may_pass

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    # Nothing of ours goes through pandas there.
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
]
N_ITEMS, SHARD_ITEMS = 200, 16  # 13 shards


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def session(place):
    from pipeline.spark.cluster import prepare

    with pytest.MonkeyPatch.context() as patch, two_executors(place, patch) as found:
        prepare(found)
        yield found


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A folder with the results of the stages before: a model, and clean items in groups of rows of 30."""
    root = tmp_path_factory.mktemp("stages")
    make_model().save(root / "model.h5")
    pq.write_table(pa.Table.from_batches([make_items(N_ITEMS)]), root / "items.parquet", row_group_size=30)
    pq.write_table(pa.table({"scope": ["item", "tag"]}), root / "rejects.parquet")
    return root


def settings_of(**changes):
    return Settings(scoring={"workers": 1, "batch_size": 8, "part_items": 70, **changes})


@pytest.fixture(scope="module")
def expected(stages, tmp_path_factory):
    """What the local engine writes."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "build").mkdir()
    score(settings_of(), stages / "model.h5", stages, folder / "build", run="r1", progress=SILENT)
    return files(folder / "build")


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def score_into(folder, stages, session, *, progress=SILENT, model="model.h5", **changes):
    from pipeline.spark.scoring import score_on_spark

    (folder / "build").mkdir(parents=True)
    paths = (stages / model, stages, folder / "build")
    score_on_spark(session, settings_of(**changes), *paths, run="r1", progress=progress, shard_items=SHARD_ITEMS)
    return files(folder / "build")


@pytest.fixture
def before_each(monkeypatch):
    """Have executors do something before each shard; what it is travels to them, so it uses no name of this module."""
    from pipeline.spark import scoring

    def change(action):
        class Changed(scoring.ScoreRows):
            def __call__(self, batches):
                def watched():
                    for batch in batches:
                        for number in batch.column(0).to_pylist():
                            action(number)
                        yield batch

                return super().__call__(watched())

        monkeypatch.setattr(scoring, "ScoreRows", Changed)

    return change


# --- the same bytes


def test_executors_give_the_bytes_of_the_local_engine(session, stages, expected, tmp_path, place):
    assert score_into(tmp_path, stages, session) == expected
    assert set(expected) == {f"part-0000{n}.parquet" for n in range(3)} | {
        "scores.h5",
        "rejects.parquet",
        "summary.json",
    }


def test_each_process_of_an_executor_opens_the_model_once(session, stages, expected, tmp_path, place):
    (place / "opened").unlink(missing_ok=True)
    make_model(seed=9).save(stages / "other-model.h5")
    score_into(tmp_path / "once", stages, session, model="other-model.h5")
    opened = Counter((place / "opened").read_text().split())
    assert 1 <= len(opened) <= 2
    score_into(tmp_path / "again", stages, session, model="other-model.h5")
    assert Counter((place / "opened").read_text().split()) == opened
    # Of 13 shards of a run a process had six at least.
    assert max(opened.values()) < 6


def test_executors_need_five_libraries_and_nothing_of_weight(session):
    from pipeline.spark.executor import row
    from pipeline.spark.waves import through_executors

    def look(batches):
        from contextlib import suppress
        from importlib.util import find_spec

        for batch in batches:
            names = ("numpy", "pipeline", "luigi", "pandas", "theano", "pytensor", "duckdb", "threadpoolctl")
            for number in batch.column(0).to_pylist():
                found = []
                for name in names:
                    with suppress(ModuleNotFoundError):
                        found += [name] if find_spec(name) else []
                yield row(number, pa.py_buffer(" ".join(found).encode()))

    (told,) = through_executors(session, [(0, pa.py_buffer(b""))], look)
    assert told[1].to_pybytes() == b"numpy pipeline"


def test_the_engine_is_no_part_of_the_identity():
    for stage in ("score", "features"):
        changed = Settings(scoring={"engine": "spark"}, features={"engine": "spark"})
        assert significant(changed, stage) == significant(Settings(), stage)


def test_a_catalog_without_items(session, stages, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    pq.write_table(pa.Table.from_batches([make_items(1)])[:0], empty / "items.parquet")
    pq.write_table(pa.table({"scope": pa.array([], pa.string())}), empty / "rejects.parquet")
    (empty / "model.h5").hardlink_to(stages / "model.h5")
    assert list(score_into(tmp_path / "scored", empty, session)) == [
        "rejects.parquet",
        "scores.h5",
        "part-00000.parquet",
        "summary.json",
    ]


def test_the_driver_holds_three_waves_at_most(session):
    from pipeline.spark.waves import PER_TASK, UNDER_WAY, through_executors

    asked = given = most = 0

    def parts():
        nonlocal asked, most
        for number in range(40):
            asked += 1
            most = max(most, asked - given)
            yield number, pa.py_buffer(b"x")

    for _ in through_executors(session, parts(), lambda batches: batches):
        given += 1
    assert given == 40
    assert most <= (UNDER_WAY + 1) * PER_TASK * session.sparkContext.defaultParallelism < 40


# --- cleaning and features


ALL_KINDS = {
    "blocks": "tags, tag_words, tag_chars, text_words:plot, text_bigrams:name, text_chars:name, categories",
    "text_length": "50, 20",
    "hash_width": 256,
    "max_tags": 2,
    "shard_items": 37,
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """A folder with a catalog of every kind of column, cleaned, and its settings."""
    from pipeline.cleaning import clean

    folder, rng = tmp_path_factory.mktemp("catalog"), random.Random(5)
    words = ["zombies", "mall", "caf\u00e9", "love", "deep space", "\u6620\u753b", "Na\u00efve", "long take"]
    rows = [
        {
            "item_id": f"m{number}",
            "title": f"Film {number}",
            "tags": rng.sample(words, rng.randrange(6)) * rng.randrange(1, 3),
            "name": rng.choice(["Night of the Dead", "Manhattan Nights", None]),
            "plot": " ".join(rng.choices(words, k=12)),
            "brand": ["Laurel ", "orion", None][number % 3],
            "year": None if number % 5 == 0 else 1900 + rng.random() * 100,
            "embedding": None if number % 7 == 0 else [rng.random(), 0.5],
            "genre": [None, "Horror", "Comedy"][number % 3],
        }
        for number in range(300)
    ]
    raw = str(folder / "raw.parquet")
    pq.write_table(pa.Table.from_pylist(rows), raw)
    columns = {
        "text": "name, plot",
        "categories": "brand",
        "numbers": "year",
        "vectors": "embedding",
        "levels": "genre",
    }
    sections = {"catalog": {"items": raw, **columns}, "features": ALL_KINDS}
    clean(make_settings(sections), folder, expected={raw: digests.sha256_of(Path(raw))}, role="training")
    return folder, sections


@pytest.mark.parametrize("role", ["training", "scoring"])
def test_executors_clean_a_catalog_as_the_local_engine_does(session, tmp_path, monkeypatch, role):
    from pipeline.cleaning import clean
    from pipeline.spark.cleaning import clean_on_spark

    monkeypatch.setattr("pipeline.windows.WINDOW", 64)
    rng = random.Random(4)
    words = [
        "Zombies",
        "zombies ",
        "caf&eacute;",
        "Sci-Fi",
        "sci fi",
        "x" * 200,
        "!!",
        "Horror",
        "stop me",
        "\u6620\u753b",
    ]
    rows = ["item_id,title,genre,theme"]
    rows += [f"m{n},Film {n},{['Horror', 'Comedy', ''][n % 3]},{'Ghosts' if n % 3 == 0 else ''}" for n in range(300)]
    rows += ["m5,again,Horror,Ghosts", ",nameless,Horror,"]
    (tmp_path / "items.csv").write_text("\n".join(rows) + "\n")
    tags = ["item_id,tag,user"]
    tags += [f"m{rng.randrange(305)},{rng.choice(words)},u{rng.randrange(5)}" for _ in range(2_000)]
    (tmp_path / "tags.csv").write_text("\n".join(tags) + "\n")
    paths = {name: str(tmp_path / f"{name}.csv") for name in ("items", "tags")}
    of_tags = {"tags_column": "tag", "tags_user": "user"}
    rules = {"max_reject_share": 1, "stop_tags": "stop me", "drop_label_tags": True, "min_tag_users": 2}
    scored = paths if role == "scoring" else {}
    sections = {"catalog": {**paths, **of_tags, "levels": "genre, theme"}, "clean": rules, "scoring": scored}
    settings = make_settings(sections)
    expected = {path: digests.sha256_of(Path(path)) for path in paths.values()}
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    clean(settings, tmp_path / "here", expected=expected, role=role)
    clean_on_spark(session, settings, tmp_path / "there", expected=expected, role=role, progress=SILENT)
    here = files(tmp_path / "here")
    assert files(tmp_path / "there") == here
    assert {"items.parquet", "rejects.parquet", "statistics.json", "tags.parquet"} <= set(here)
    assert pq.ParquetFile(tmp_path / "here" / "items.parquet").num_row_groups == 5


@pytest.mark.parametrize("changes", [{"keep_tags": "first"}, {"blocks": "tags, tag_words", "min_count": 20}])
def test_executors_make_the_vocabulary_and_the_shards_of_the_local_engine(session, catalog, tmp_path, changes):
    from pipeline.features import build
    from pipeline.spark.features import build_on_spark

    folder, sections = catalog
    settings = make_settings({**sections, "features": {**ALL_KINDS, **changes}})
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    build(settings, folder, tmp_path / "here")
    on_spark = settings.model_copy(update={"features": settings.features.model_copy(update={"engine": "spark"})})
    build_on_spark(session, on_spark, folder, tmp_path / "there", progress=SILENT, part_items=23)
    here = files(tmp_path / "here")
    assert files(tmp_path / "there") == here
    assert sorted(here) == [*(f"features-0000{n}.h5" for n in range(6)), "transform.h5", "vocabulary.parquet"]


def test_counts_that_are_merged_are_those_of_all_items_whatever_the_parts_and_their_order(catalog, tmp_path):
    folder, sections = catalog
    items = pq.read_table(folder / "items.parquet")
    whole, rng = Fitter(make_settings(sections)), random.Random(3)
    whole.add_items(items)
    cuts = sorted(rng.sample(range(1, len(items)), 6))
    parts = [items.slice(start, stop - start) for start, stop in pairwise([0, *cuts, len(items)])]
    rng.shuffle(parts)
    merged = Fitter(make_settings(sections))
    for part in parts:
        one = Fitter(make_settings(sections))
        one.add_items(part)
        merged.merge(one)
    for name, fitter in (("whole", whole), ("merged", merged)):
        (tmp_path / name).mkdir()
        write_transform(fitter.transform(), tmp_path / name)
    assert files(tmp_path / "merged") == files(tmp_path / "whole")


# --- what goes wrong


def test_an_executor_that_is_killed_costs_nothing_but_time(session, stages, expected, tmp_path, before_each):
    before_each(lambda number: time.sleep(0.3))
    killed = []

    def kill_one():
        killed.extend(executors()[:1])
        os.kill(killed[0], signal.SIGKILL)

    assert score_into(tmp_path, stages, session, progress=AtFirst(kill_one)) == expected
    assert killed
    assert killed[0] not in executors()


def test_a_task_that_is_tried_again_counts_once(session, stages, expected, tmp_path, before_each):
    log = tmp_path / "attempts"

    def fail_at_first(number):
        from pyspark import TaskContext

        attempt = TaskContext.get().attemptNumber()
        with log.open("a") as file:
            print(number, attempt, file=file)
        if attempt == 0 and number == 5:
            raise RuntimeError("at first")

    before_each(fail_at_first)
    assert score_into(tmp_path, stages, session) == expected
    assert {"5 0", "5 1"} <= set(log.read_text().splitlines())


def test_a_failed_job_publishes_nothing_and_the_next_one_goes_on(session, stages, expected, tmp_path, before_each):
    def fail(number):
        if number == 12:
            raise RuntimeError("no more")

    before_each(fail)
    published, work = tmp_path / "published", tmp_path / "work"

    def on_spark(folder):
        from pipeline.spark.scoring import score_on_spark

        paths = (stages / "model.h5", stages, folder)
        score_on_spark(session, settings_of(), *paths, run="r1", progress=SILENT, shard_items=SHARD_ITEMS)

    with pytest.raises(WorkerError, match=r"Spark gave up: .*no more.*nothing was published; run the same command"):
        artifacts.publish(published, on_spark, work=work, facts={})
    assert not published.exists()
    done = {path.name: path.stat().st_mtime_ns for path in (work / "shards").glob("*.arrow")}
    assert done  # the first waves

    def here(folder):
        effort = Effort(shard_items=SHARD_ITEMS)
        score(settings_of(), stages / "model.h5", stages, folder, run="r1", progress=AtFirst(look), effort=effort)

    def look():
        now = {path.name: path.stat().st_mtime_ns for path in (work / "shards").glob("*.arrow")}
        assert {name: now[name] for name in done} == done

    artifacts.publish(published, here, work=work, facts={})
    found = files(published)
    assert {name: found[name] for name in expected} == expected


def test_what_an_executor_meets_is_told_as_it_is(session, stages, tmp_path, before_each):
    def meet(number):
        from pipeline.errors import ModelError

        if number == 0:
            full = OSError(28, "No space left on device", "/scratch")
            raise ModelError("model.h5: is damaged; export it again") from full

    before_each(meet)
    with pytest.raises(ModelError, match=r"^model\.h5: is damaged; export it again$") as caught:
        score_into(tmp_path, stages, session)
    assert may_pass(caught.value)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("Job aborted due to stage failure: Lost task: java.io.IOException: No space left on device", True),
        ("OSError: [Errno 116] Stale file handle: '/share'\n\npipeline.errors.ModelError: model.h5: is away", True),
        ("pipeline.errors.CatalogError: column 'No space left on device' is missing", False),
        ("Job aborted due to stage failure: java.lang.OutOfMemoryError", False),
    ],
)
def test_what_is_full_or_away_on_an_executor_may_pass(text, passes):
    from pipeline.spark.waves import told

    assert may_pass(told(Exception(text))) is passes


def test_each_wave_has_parts_for_the_executors_that_are_there_by_then():
    from pipeline.spark.waves import waves

    most = iter([2, 2, 8, 8])
    found = waves(((number, b"x") for number in range(16)), n_parts=lambda: next(most), n_bytes=1000)
    assert [len(wave) for wave in found] == [2, 2, 8, 4]
