"""Input files by URL: brought once, known by their content, and what is told where they are absent or refused."""

import os
import sys
import time
from pathlib import Path

import fsspec
import pytest

from pipeline import downloads, stores
from pipeline.config import Settings, make_settings
from pipeline.digests import sha256_of
from pipeline.errors import CatalogError, SettingsError
from pipeline.inputs import expand
from pipeline.readers import Wanted, read
from pipeline.tables import Files


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


def test_a_file_by_url_is_read_from_a_copy_with_its_digest(store, tmp_path):
    store.pipe("/in/films.csv.gz", b"packed")
    (tmp_path / "same").write_bytes(b"packed")
    assert downloads.digest("memory://in/films.csv.gz") == sha256_of(tmp_path / "same")
    copy = downloads.here("memory://in/films.csv.gz")
    assert copy.startswith(str(tmp_path / "cache")) and copy.endswith(".csv.gz")
    assert sha256_of(copy) == sha256_of(tmp_path / "same")


def test_it_is_brought_once_as_long_as_the_store_says_it_is_the_same(store, monkeypatch):
    store.pipe("/in/films.csv", b"one")
    first = downloads.digest("memory://in/films.csv")
    monkeypatch.setattr(downloads, "_bring", None)
    assert downloads.digest("memory://in/films.csv") == first


def test_a_new_version_takes_the_place_of_the_old_one(store):
    store.pipe("/in/films.csv", b"one")
    old, first = downloads.digest("memory://in/films.csv"), downloads.here("memory://in/films.csv")
    store.pipe("/in/films.csv", b"two")
    assert downloads.digest("memory://in/films.csv") != old
    assert Path(downloads.here("memory://in/films.csv")).read_text() == "two"
    assert Path(first).read_text() == "one"  # for a run that is at work on it
    yesterday = time.time() - 25 * 3600
    os.utime(first, (yesterday, yesterday))
    store.pipe("/in/films.csv", b"three")
    downloads.digest("memory://in/films.csv")
    assert not Path(first).exists()


def test_a_process_goes_on_with_the_version_that_it_was_told_of(store):
    store.pipe("/in/films.csv", b"one")
    downloads.digest("memory://in/films.csv")
    store.pipe("/in/films.csv", b"two")
    told = dict(downloads._asked)
    downloads.digest("memory://in/films.csv")  # as another process does
    downloads._asked.update(told)
    assert Path(downloads.here("memory://in/films.csv")).read_text() == "one"
    downloads._asked.clear()  # a process of its own, as that of Spark
    assert Path(downloads.here("memory://in/films.csv")).read_text() == "two"
    downloads.expect("memory://in/films.csv", told["memory://in/films.csv"]["sha256"])
    assert Path(downloads.here("memory://in/films.csv")).read_text() == "one"


def test_a_copy_that_has_changed_is_refused_and_brought_again(store):
    store.pipe("/in/films.csv", b"item_id\n1\n")
    url = "memory://in/films.csv"
    digest = downloads.digest(url)
    Path(downloads.here(url)).write_bytes(b"item_id\n2\n")
    with pytest.raises(CatalogError, match="changed while the run was on"):
        list(read(url, Wanted(("item_id",)), expected=digest))
    (rows,) = read(url, Wanted(("item_id",)), expected=downloads.digest(url))
    assert rows.table["item_id"].to_pylist() == ["1"]


def test_a_copy_that_was_cut_is_brought_again(store):
    store.pipe("/in/films.csv", b"one")
    downloads.digest("memory://in/films.csv")
    Path(downloads.here("memory://in/films.csv")).write_text("")
    assert Path(downloads.here("memory://in/films.csv")).read_text() == "one"


def test_a_file_that_changes_all_the_while_is_told(store, monkeypatch):
    store.pipe("/in/films.csv", b"one")
    versions = iter(range(100))
    monkeypatch.setattr(downloads, "version", lambda url: [3, str(next(versions))])
    with pytest.raises(SettingsError, match="changes while it is read"):
        downloads.digest("memory://in/films.csv")


def test_what_is_absent_has_no_digest_and_a_path_of_this_machine_is_its_own_copy(store):
    assert downloads.digest("memory://in/absent.csv") is None
    assert downloads.here("in/films.csv") == "in/films.csv"
    with pytest.raises(SettingsError, match=r"memory://in/absent.csv: there is no such file any more"):
        downloads.here("memory://in/absent.csv")


def test_a_directory_that_is_absent_is_an_absent_file(store):
    assert expand("memory://absent/") == ("memory://absent/",)
    assert downloads.digest("memory://absent/") is None


def test_globs_and_directories_are_expanded_in_order(store):
    for name in ("b.csv", "a.parquet", "_SUCCESS", ".c.csv", "notes.txt", "deep/d.csv"):
        store.pipe(f"/in/{name}", b"x")
    assert expand("memory://in/*.csv") == ("memory://in/.c.csv", "memory://in/b.csv")
    assert expand("memory://in") == expand("memory://in/") == ("memory://in/a.parquet", "memory://in/b.csv")
    assert expand("memory://in/b.csv") == ("memory://in/b.csv",)
    assert expand("memory://absent/*.csv") == ("memory://absent/*.csv",)
    assert expand("memory://absent.csv") == ("memory://absent.csv",)


def test_a_file_url_is_a_path_and_a_password_in_a_url_is_refused(tmp_path):
    settings = Settings(catalog={"items": f"file://{tmp_path}/films.csv"})
    assert Files.of(settings, role="training").items == (f"{tmp_path}/films.csv",)
    with pytest.raises(SettingsError, match="credentials come from the environment") as told:
        make_settings({"catalog": {"items": "s3://name:word@bucket/films.csv"}})
    assert "word@" not in str(told.value)


@pytest.mark.parametrize(("scheme", "library"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_store_whose_library_is_missing_names_the_extra(monkeypatch, scheme, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})  # what was imported before
    with pytest.raises(SettingsError, match=rf"pip install 'tagladder\[{scheme}\]'"):
        stores.filesystem(f"{scheme}://bucket-of-{library}/x")


def test_a_scheme_that_nobody_knows_is_refused():
    with pytest.raises(SettingsError, match=r"there are s3://, gs://, hdfs:// and paths"):
        stores.filesystem("s4://bucket/x")
