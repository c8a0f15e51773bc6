"""Results below gs://: gcsfs, and an emulator of the service that is taught here to heed the condition of a write."""

import socket
import threading
from http import HTTPStatus

import pytest
from remote_root import publish_run
from s3_server import own_cache
from small_job import Project

from pipeline import artifacts, doctor, pointers, retention, stores
from pipeline.config_results import StorageSettings
from pipeline.errors import ArtifactError
from pipeline.object_store import ObjectStore
from pipeline.remote import open_root, remote_of

pytest.importorskip("gcsfs", reason="gcsfs is not installed: gs:// is not tested")
emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def endpoint():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def known(endpoint) -> dict[str, str]:
    """The variables by which a process finds the emulator, and asks no other service what kind of bucket it is."""
    return {"STORAGE_EMULATOR_HOST": endpoint, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


@pytest.fixture(autouse=True)
def environment(known, monkeypatch):
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    yield
    stores.close()


@pytest.fixture
def conditions(monkeypatch):
    """Let the emulator, which takes one request after the other, heed ifGenerationMatch as the service does."""
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects

    plain = objects._media_upload

    def upload(request, response, storage):
        wanted = request.query.get("ifGenerationMatch", [None])[0]
        try:
            there = storage.get_file_obj(request.params["bucket_name"], request.query["name"][0])["generation"]
        except NotFound:
            there = "0"
        if wanted in (None, there):
            return plain(request, response, storage)
        response.status = HTTPStatus.PRECONDITION_FAILED
        return None

    monkeypatch.setattr(objects, "_media_upload", upload)


def test_objects_are_written_under_a_condition_read_listed_and_removed(tmp_path, conditions):
    store = ObjectStore("gs://bucket/objects")
    assert store.list() == {} and store.read("a/b") is None
    assert store.write_if("a/b", b"1") and not store.write_if("a/b", b"2")
    found = store.read("a/b")
    store.change("a/b", lambda content: content + b"3")
    assert not store.write_if("a/b", b"4", tag=found.tag) and store.read("a/b").content == b"13"
    (tmp_path / "file").write_bytes(bytes(300_000))
    store.upload(tmp_path / "file", "c/d/e")
    store.download("c/d/e", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(300_000)
    assert {key: entry.size for key, entry in store.list().items()} == {"a/b": 2, "c/d/e": 300_000}
    store.remove(["a/b", "absent"])
    assert list(store.list()) == ["c/d/e"]
    with pytest.raises(ArtifactError, match="gs://no-bucket/a: there is no such bucket"):
        ObjectStore("gs://no-bucket").write_if("a", b"1")


def test_of_many_writers_at_once_each_has_its_turn(conditions):
    store = ObjectStore("gs://bucket/turns")
    threads = [
        threading.Thread(target=store.change, args=("n", lambda was, own=own: (was or b"") + own))
        for own in (b"a", b"b", b"c", b"d", b"e", b"f")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(store.read("n").content) == sorted(b"abcdef")


def test_two_machines_share_a_root(tmp_path, conditions):
    one, two = (
        open_root(StorageSettings(root="gs://bucket/root", local=str(tmp_path / name))) for name in ("one", "two")
    )
    first = publish_run(one, 1, "2026-11-22")
    second = publish_run(two, 2, "2026-11-23")
    publish_run(one, 3, "2026-11-21")
    seen = open_root(StorageSettings(root="gs://bucket/root", local=str(tmp_path / "three")))
    assert pointers.latest(seen).run == second
    assert (artifacts.verify(seen / "score" / first) / "scores.parquet" / "part-0.parquet").read_text() == "scores"
    pointers.pin(seen, pointers.read(pointers.of_date(seen, "2026-11-22")))
    assert retention.clean(seen, keep_runs=1) == []  # the newest date, the one published last, the pinned one
    assert pointers.release(seen).run == second
    assert doctor.check_store(remote_of(seen)).state == "ok"


def test_a_store_that_heeds_no_condition_is_told_by_the_doctor(tmp_path):
    root = open_root(StorageSettings(root="gs://bucket/other", local=str(tmp_path / "one")))
    assert "lets two writers both believe" in doctor.check_store(remote_of(root)).fact


def test_the_job_gives_the_bytes_that_a_disk_gives(first_run, known, tmp_path, conditions):
    job = Project(first_run[0].folder, known | own_cache(tmp_path / "cache"))
    job.score("--storage-root", "gs://bucket/job", "--scoring-workers", "1")
    (local,) = first_run[0].root.glob("score/*/scores.parquet/part-00000.parquet")
    store = ObjectStore("gs://bucket/job")
    (there,) = [key for key in store.list("score") if key.endswith("part-00000.parquet")]
    assert store.read(there).content == local.read_bytes()
