"""A root in an object store, without a job: what is published, fetched, pointed to and removed."""

import datetime
import errno
import json
import threading

import pyarrow.fs
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper
from remote_root import RUN, URL, objects, publish, publish_run

from pipeline import (
    artifacts,
    conditional,
    forgetting,
    invalidation,
    leases,
    mirror,
    pointers,
    remote_leases,
    remote_pointers,
    retention,
    runs,
    stores,
    verification,
)
from pipeline.config_results import StorageSettings
from pipeline.digests import fingerprint, sealed
from pipeline.errors import ArtifactError, SettingsError
from pipeline.manifests import FORMAT, exists_here
from pipeline.object_store import ObjectStore
from pipeline.remote import open_root, remote_of


def test_what_one_machine_publishes_another_one_has_with_the_same_bytes(machine, memory):
    folder = publish(machine())
    other = machine("two") / "score" / RUN
    assert artifacts.exists(other) and not other.exists()
    assert artifacts.verify(other) == other
    names = ("manifest.json", "scores.parquet/part-0.parquet", "summary.json")
    assert [(other / name).read_bytes() for name in names] == [(folder / name).read_bytes() for name in names]


def test_the_manifest_is_the_last_thing_that_is_written(machine, memory, monkeypatch):
    written = []
    for name in ("upload", "write_if"):
        method = getattr(ObjectStore, name)
        key_at = 2 if name == "upload" else 1
        monkeypatch.setattr(
            ObjectStore,
            name,
            lambda *args, m=method, at=key_at, **more: (written.append(args[at]), m(*args, **more))[1],
        )
    publish(machine())
    assert [name.rpartition("/")[2] for name in written] == ["part-0.parquet", "summary.json", "manifest.json"]


def test_a_directory_without_its_manifest_does_not_exist_and_is_published_again(machine, memory):
    root = machine()
    folder = publish(root)
    memory.rm_file(f"/bucket/root/score/{RUN}/manifest.json")
    assert not artifacts.exists(folder) and exists_here(folder)
    publish(root)
    assert artifacts.exists(folder)


def test_a_directory_that_has_lost_a_file_does_not_exist_and_is_published_again(machine, memory):
    root = machine()
    folder = publish(root)
    (part,) = [name for name in objects(memory) if name.endswith("part-0.parquet")]
    memory.rm_file(f"/bucket/root/{part}")
    assert not artifacts.exists(folder)
    publish(root)
    assert artifacts.exists(machine("two") / "score" / RUN)


def test_of_two_writers_one_wins_and_the_other_one_takes_its_bytes(machine, memory):
    first, second = machine("one"), machine("two")
    publish(first, text="made here")
    late = publish(second, text="made there")
    assert (late / "scores.parquet" / "part-0.parquet").read_text() == "made here"
    assert artifacts.verify(late)
    assert len([name for name in objects(memory) if name.endswith("part-0.parquet")]) == 1


def test_a_writer_that_is_overtaken_while_it_uploads_takes_what_is_there_and_leaves_nothing(
    machine, memory, monkeypatch
):
    first, second = machine("one"), machine("two")
    upload = ObjectStore.upload

    def overtaken(self, path, key):
        monkeypatch.setattr(ObjectStore, "upload", upload)
        publish(second, text="made there")
        upload(self, path, key)

    monkeypatch.setattr(ObjectStore, "upload", overtaken)
    folder = publish(first, text="made here")
    assert (folder / "scores.parquet" / "part-0.parquet").read_text() == "made there"
    assert len([name for name in objects(memory) if name.endswith("part-0.parquet")]) == 1


def test_what_another_machine_has_made_meanwhile_is_not_made_again(machine):
    first, second = machine("one"), machine("two")
    publish(first)
    folder = second / "score" / RUN
    artifacts.publish(folder, lambda _: pytest.fail("made again"), work=second / "work" / RUN, facts={})
    assert artifacts.verify(folder)


def test_what_the_store_has_damaged_is_made_again_by_the_stage(machine, memory):
    publish(machine("one"))
    (part,) = [name for name in objects(memory) if name.endswith("part-0.parquet")]
    memory.pipe_file(f"/bucket/root/{part}", b"SCORES")
    publish(machine("two"))
    assert artifacts.verify(machine("three") / "score" / RUN)


def test_many_writers_at_once_leave_one_result(machine, memory):
    roots = [machine(str(number)) for number in range(4)]
    threads = [
        threading.Thread(target=publish, args=(root,), kwargs={"text": str(number)})
        for number, root in enumerate(roots)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parts = {(root / "score" / RUN / "scores.parquet" / "part-0.parquet").read_text() for root in roots}
    assert len(parts) == 1
    assert len([name for name in objects(memory) if name.endswith("part-0.parquet")]) == 1


def test_a_file_that_was_changed_in_the_store_is_refused_and_found(machine, memory):
    publish(machine())
    (part,) = [name for name in objects(memory) if name.endswith("part-0.parquet")]
    memory.pipe_file(f"/bucket/root/{part}", b"SCORES")
    root = machine("two")
    with pytest.raises(ArtifactError, match="is not what its manifest lists"):
        artifacts.verify(root / "score" / RUN)
    assert not (root / "score" / RUN).exists()
    (damage,) = artifacts.damages(root / "score" / RUN)
    assert damage == f"{URL}/{part}: has changed since it was published; the next run makes it again"


@pytest.mark.parametrize("name", ["../../published/latest.json", "/etc/passwd", ""])
def test_a_manifest_that_names_files_elsewhere_is_refused(machine, memory, name):
    root = machine()
    content = {"format": FORMAT, "files": {name: {"size": 1, "sha256": "0"}}, "attempt": "a"}
    memory.pipe_file(f"/bucket/root/score/{RUN}/manifest.json", sealed(content).encode())
    assert not artifacts.exists(root / "score" / RUN)
    with pytest.raises(ArtifactError, match="it names files that lie elsewhere"):
        artifacts.at_hand(root / "score" / RUN)


def test_a_copy_that_is_not_what_the_store_has_is_brought_anew(machine, memory):
    root, other = machine(), machine("two")
    folder = publish(root, text="old")
    memory.rm(f"/bucket/root/score/{RUN}", recursive=True)
    publish(other, text="new")
    remote_of(root).compared.clear()  # as in the next process
    assert (artifacts.verify(folder) / "scores.parquet" / "part-0.parquet").read_text() == "new"


def test_a_damaged_copy_is_thrown_away_and_brought_again(machine):
    root = machine()
    folder = publish(root)
    (folder / "summary.json").write_text("[]")
    with pytest.raises(ArtifactError, match="has changed since it was published"):
        artifacts.verify(folder)
    artifacts.disown(folder)
    assert artifacts.verify(folder).joinpath("summary.json").read_text() == "{}"


def test_pointers_name_the_directories_that_other_tools_read(machine, memory):
    run = publish_run(machine(), 1, "2026-11-23")
    stored = json.loads(memory.cat_file("/bucket/root/published/latest.json"))
    assert memory.cat_file(f"/bucket/root/{stored['folder']}/scores.parquet/part-0.parquet") == b"scores"
    assert memory.exists(f"/bucket/root/{stored['model_file'].rpartition('/')[0]}/summary.json")
    other = machine("two")
    assert runs.find(other, None).run == run == pointers.latest(other).run
    assert pointers.latest(other).folder == f"score/{run}"
    assert list(verification.damaged_pointers(other)) == []


def test_latest_moves_forward_only_and_a_rollback_holds_until_it_is_released(machine):
    root, other = machine(), machine("two")
    first = publish_run(root, 1, "2026-11-23")
    publish_run(other, 2, "2026-11-22")
    assert pointers.latest(machine()).run == first
    second = publish_run(root, 3, "2026-11-24")
    pointers.pin(root, pointers.read(pointers.of_date(root, "2026-11-23")))
    publish_run(other, 4, "2026-11-25")
    assert pointers.latest(machine("three")).run == first != second
    assert pointers.release(other).date == "2026-11-25"
    assert pointers.latest(machine("three")).date == "2026-11-25"
    assert pointers.pinned(machine("three")) is None


def test_a_date_that_was_a_mistake_is_forgotten_by_store_and_copies(machine, memory):
    root, other = machine(), machine("two")
    first = publish_run(root, 1, "2026-11-23")
    publish_run(root, 2, "2062-11-23")
    assert publish_run(other, 3, "2026-11-24") != pointers.latest(machine("two")).run
    assert forgetting.forget(machine(), "2062-11-23").date == "2026-11-24"
    assert pointers.latest(machine("three")).date == pointers.latest(root).date == "2026-11-24"
    assert not [name for name in objects(memory) if "2062" in name]
    assert not list((machine("two") / "published").glob("2062*")) and runs.find(other, "2026-11-23").run == first


def test_a_pointer_that_another_machine_moves_meanwhile_is_read_again(machine, monkeypatch):
    root, other = machine(), machine("two")
    publish_run(root, 1, "2026-11-23")
    plain, late = remote_pointers.as_stored, []

    def overtaken(remote, pointer):
        stored = plain(remote, pointer)
        if not late:
            late.append(True)
            publish_run(other, 2, "2026-11-25")
        return stored

    monkeypatch.setattr(remote_pointers, "as_stored", overtaken)
    publish_run(root, 3, "2026-11-24")
    assert pointers.latest(machine()).date == "2026-11-25"
    assert {pointer.date for pointer in pointers.of_dates(machine())} == {"2026-11-23", "2026-11-24", "2026-11-25"}


def test_of_two_plans_of_a_date_the_first_one_counts(machine):
    root, other = machine(), machine("two")
    name = "plan/2026-11-23-1.json"
    assert mirror.keep_first(remote_of(root), root / name, "first") == "first"
    assert mirror.keep_first(remote_of(other), other / name, "second") == "first"
    assert (other / name).read_text() == "first"


def test_what_is_invalidated_on_one_machine_is_so_on_all(machine):
    root, other = machine(), machine("two")
    invalidation.invalidate(root, {"train": "1a"})
    invalidation.invalidate(other, {"clean": "2b"})
    assert set(invalidation.invalidated(machine())) == set(invalidation.invalidated(other)) == {"1a", "2b"}


def test_small_files_are_read_again_only_when_they_have_changed(machine, monkeypatch):
    root = machine()
    publish_run(root, 1, "2026-11-23")
    read = []
    plain = ObjectStore.read
    monkeypatch.setattr(ObjectStore, "read", lambda self, key: (read.append(key), plain(self, key))[1])
    machine()
    assert read == []


def test_a_directory_that_is_the_copy_of_another_root_is_refused(machine, tmp_path):
    machine()
    with pytest.raises(SettingsError, match=r"\[storage\] local = .*: is the working copy of memory://bucket/root"):
        open_root(StorageSettings(root="memory://bucket/other", local=str(tmp_path / "one")))


def test_retention_keeps_what_pointers_name_and_what_that_was_made_from(machine, memory):
    root = machine()
    kept = [publish_run(root, number, f"2026-11-2{number}") for number in (1, 2, 3)][1:]
    remote_leases._end(
        *next(iter((key[0], remote_of(root)) for key in remote_leases._own))
    ) if remote_leases._own else 0
    would = retention.clean(root, keep_runs=2, dry_run=True)
    assert [found.path.split("/")[0] for found in would] == ["export", "score", "plan"]
    assert retention.clean(machine("two"), keep_runs=2) == would
    runs_there = {name.split("/")[1] for name in objects(memory) if name.startswith("score/")}
    assert runs_there == set(kept)
    assert pointers.removed(machine()) == {"2026-11-21": fingerprint({"run": 1})}
    assert [pointer.date for pointer in pointers.of_dates(machine())] == ["2026-11-22", "2026-11-23"]
    assert retention.clean(root, keep_runs=2) == []


def test_retention_goes_round_what_a_process_of_another_machine_needs(machine, memory):
    root = machine()
    old = publish_run(root, 1, "2026-11-21")
    publish_run(root, 2, "2026-11-22")
    memory.pipe_file("/bucket/root/in-use/there-1-2.json", json.dumps([old]).encode())
    assert retention.clean(root, keep_runs=1) == []
    memory.rm_file("/bucket/root/in-use/there-1-2.json")
    assert retention.clean(root, keep_runs=1) != []


def test_a_process_that_needs_a_directory_while_it_is_taken_away_gets_it_back(machine, memory, monkeypatch):
    root = machine()
    old = publish_run(root, 1, "2026-11-21")
    publish_run(root, 2, "2026-11-22")
    asked = []
    plain = remote_leases.needed

    def one_more(remote):
        asked.append(True)
        return plain(remote) | ({old} if len(asked) > 1 else set())

    monkeypatch.setattr(remote_leases, "needed", one_more)
    retention.clean(root, keep_runs=1)
    assert artifacts.verify(machine("two") / "score" / old)


def test_what_a_killed_writer_has_left_goes_when_it_is_old_and_not_before(machine, memory):
    root = machine()
    publish_run(root, 1, "2026-11-21")
    left = f"/bucket/root/score/{RUN}/20261121T000000Z-aa/scores.h5"
    memory.pipe_file(left, b"half")
    memory.pipe_file("/bucket/root/in-use/there-1-2.json", b"[]")
    assert retention.clean(root, keep_runs=1) == []
    for name in (left, "/bucket/root/in-use/there-1-2.json"):
        memory.store[name].created -= datetime.timedelta(hours=49)
        memory.store[name].modified -= datetime.timedelta(hours=49)
    gone = {found.path for found in retention.clean(root, keep_runs=1)}
    assert gone == {left.removeprefix("/bucket/root/"), "in-use/there-1-2.json"}
    assert artifacts.exists(root / "score" / RUN)


def test_a_lease_tells_other_machines_and_goes_with_its_process(machine, memory):
    root = machine()
    leases.hold(root, [RUN])
    (name,) = [name for name in objects(memory) if name.startswith("in-use/")]
    assert json.loads(memory.cat_file(f"/bucket/root/{name}")) == [RUN]
    ((process, _),) = [key for key in remote_leases._own if key[1] == URL]
    remote_leases._end(process, remote_of(root))
    assert not memory.exists(f"/bucket/root/{name}")


@pytest.mark.parametrize("scheme", ["memory", "hdfs"])
def test_a_write_that_comes_second_is_refused(memory, scheme):
    """hdfs stands for all that know no condition: what was written is read again."""
    write = conditional.write_if
    assert write(scheme, memory, "/bucket/a", b"1", tag=conditional.ABSENT)
    assert not write(scheme, memory, "/bucket/a", b"2", tag=conditional.ABSENT)
    tag = conditional.tag_of(scheme, {}, b"1")
    assert write(scheme, memory, "/bucket/a", b"2", tag=tag)
    assert not write(scheme, memory, "/bucket/a", b"3", tag=tag)
    assert memory.cat_file("/bucket/a") == b"2"


def test_a_store_by_way_of_arrow_as_hdfs_is_has_all_that_is_needed(tmp_path, monkeypatch):
    """The wrapper that fsspec has for HDFS, over a file system of this machine."""
    arrow = ArrowFSWrapper(pyarrow.fs.LocalFileSystem())
    monkeypatch.setitem(stores._opened, ("hdfs", "host:8020"), arrow)
    plain = arrow.rm_file

    def rm_file(path):
        if not arrow.exists(path):
            raise OSError(errno.EIO, "HDFS says no more of what is absent")
        plain(path)

    monkeypatch.setattr(arrow, "rm_file", rm_file)
    store = ObjectStore(f"hdfs://host:8020{tmp_path}/root")
    assert store.list() == {} and store.read("a/b") is None
    assert store.write_if("a/b", b"1") and not store.write_if("a/b", b"2")
    store.change("a/b", lambda content: (content or b"") + b"3")
    (tmp_path / "file").write_bytes(b"file")
    store.upload(tmp_path / "file", "c/d/e")
    store.download("c/d/e", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"file"
    assert {key: entry.size for key, entry in store.list().items()} == {"a/b": 2, "c/d/e": 4}
    assert store.read("a/b").content == b"13"
    seen, rename = [], arrow.mv

    def renamed(*paths):
        seen.append((list(store.list()), store.read("a/b")))
        rename(*paths)

    monkeypatch.setattr(arrow, "mv", renamed)
    store.change("a/b", lambda _: b"13!")
    assert seen == [(["c/d/e"], None)] and store.read("a/b").content == b"13!"  # at most none, never half of it
    store.remove(["a/b"])
    store.write("in-use/x", b"[]")
    (tmp_path / "root" / "a").mkdir(exist_ok=True)
    (tmp_path / "root" / "a" / ".b.0123").touch()
    assert list(store.unfinished()) == ["a/.b.0123"] and sorted(store.list()) == ["c/d/e", "in-use/x"]
    store.remove(["a/.b.0123", "in-use/x"])
    assert store.write_if("a/b", b"13")
    assert abs((datetime.datetime.now(datetime.UTC) - store.list("c")["c/d/e"].modified).total_seconds()) < 60
    store.remove(["a/b", "absent"])
    assert list(store.list()) == ["c/d/e"]
    with pytest.raises(FileNotFoundError):
        store.download("absent", tmp_path / "copy")


def test_an_answer_that_got_lost_is_no_loss(monkeypatch):
    """The library sends the request again, and its own first one is in the way."""
    store = ObjectStore(URL)

    def told_no(*arguments, **tag):
        conditional.write_if(*arguments, **tag)
        return False

    monkeypatch.setattr("pipeline.object_store.write_if", told_no)
    assert store.write_if("a", b"1")
    assert not store.write_if("a", b"2")


def test_a_root_of_this_machine_has_no_store(tmp_path):
    assert open_root(StorageSettings(root=str(tmp_path))) == tmp_path
    assert remote_of(tmp_path) is None
