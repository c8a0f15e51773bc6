"""A root in an object store when another machine comes between two requests, or the store gives no answer."""

import datetime
from contextlib import contextmanager

import pytest
from remote_root import RUN, objects, publish, publish_run

from pipeline import artifacts, leases, pointers, remote_folders, remote_leases, remote_pointers, retention
from pipeline.errors import ArtifactError, SettingsError
from pipeline.object_store import ObjectStore
from pipeline.remote import remote_of


@pytest.fixture
def silent(monkeypatch):
    """Let one method of the store give no answer, once, to requests for what a key begins with."""

    def once(method, start):
        plain, left = getattr(ObjectStore, method), [True]

        def asked(self, key, *arguments, **options):
            if key.startswith(start) and left:
                left.clear()
                raise ArtifactError(f"{key}: there is no answer") from TimeoutError(110, "timed out")
            return plain(self, key, *arguments, **options)

        monkeypatch.setattr(ObjectStore, method, asked)

    return once


@pytest.fixture
def between(monkeypatch):
    """Do something once, before a method of the store is called with what a key begins with."""

    def once(method, start, action):
        plain, left = getattr(ObjectStore, method), [True]

        def called(self, key, *arguments, **options):
            if left and (key if isinstance(key, str) else "").startswith(start):
                left.clear()
                action()
            return plain(self, key, *arguments, **options)

        monkeypatch.setattr(ObjectStore, method, called)

    return once


@pytest.mark.parametrize("part", ["published", "plan", "score"])
def test_a_working_copy_never_takes_the_place_of_results(machine, tmp_path, part):
    there = tmp_path / "artifacts" / part / "2026-11-23.json"
    there.parent.mkdir(parents=True)
    there.write_text("{}")
    with pytest.raises(SettingsError, match=f"has results in {part}/ and is no working copy of memory://bucket/root"):
        machine("artifacts")
    assert there.exists()


def test_a_working_copy_that_was_killed_before_it_was_whole_goes_on(machine, silent):
    publish_run(machine(), 1, "2026-11-23")
    silent("read", "published/latest")
    with pytest.raises(ArtifactError, match="no answer"):
        machine("two")
    assert pointers.latest(machine("two")).date == "2026-11-23"


def test_what_the_store_does_not_answer_for_is_not_taken_for_damaged(machine, silent):
    root = machine()
    folder = publish(root)
    silent("read", "score/")
    with pytest.raises(ArtifactError, match="no answer"):
        list(artifacts.damages(folder))
    silent("download", "score/")
    with pytest.raises(ArtifactError, match="no answer"):
        list(artifacts.damages(folder))
    assert list(artifacts.damages(folder)) == []


def test_what_is_damaged_in_the_store_is_made_again_and_what_only_the_copy_has_damaged_is_not(machine, memory):
    root = machine()
    folder = publish(root)
    (folder / "summary.json").write_text("[]")
    artifacts.disown(folder)
    assert artifacts.exists(folder)
    (name,) = [name for name in objects(memory) if name.endswith("summary.json")]
    memory.pipe_file(f"/bucket/root/{name}", b"[]")
    with pytest.raises(ArtifactError, match="is not what its manifest lists"):
        artifacts.verify(folder)
    artifacts.disown(folder)
    assert not artifacts.exists(folder)
    assert publish(machine("two")).is_dir() and artifacts.verify(folder)


def test_retention_leaves_what_another_machine_makes_anew_meanwhile(machine, monkeypatch):
    root, other = machine(), machine("two")
    old = publish_run(root, 1, "2026-11-21")
    publish_run(root, 2, "2026-11-22")
    plain, anew = ObjectStore.remove, []

    def remove(self, keys):
        keys = list(keys)
        if not anew and any(key.startswith(f"score/{old}") and not key.endswith("manifest.json") for key in keys):
            anew.append(publish(other, "score", old))
        plain(self, keys)

    monkeypatch.setattr(ObjectStore, "remove", remove)
    retention.clean(root, keep_runs=1)
    assert anew and artifacts.exists(root / "score" / old)


def test_a_lease_that_the_store_did_not_take_is_written_by_the_next_try(machine, silent):
    root = machine()
    silent("write", "in-use/")
    with pytest.raises(ArtifactError, match="no answer"):
        leases.hold(root, ["1a"])
    leases.hold(root, ["1a"])
    assert "1a" in remote_leases.needed(remote_of(root))


def test_a_lease_that_nobody_can_read_holds_retention_up_until_it_is_over(machine, memory):
    root, name = machine(), "/bucket/root/in-use/there-1-2.json"
    publish(root)
    memory.pipe_file(name, b"not JSON")
    with pytest.raises(ArtifactError, match=r"in-use/there-1-2.json: does not say what a process needs .*; remove it"):
        retention.clean(root, keep_runs=1)
    memory.store[name].created -= datetime.timedelta(hours=49)
    memory.store[name].modified -= datetime.timedelta(hours=49)
    assert "in-use/there-1-2.json" in [found.path for found in retention.clean(root, keep_runs=1)]


def test_a_pointer_that_is_removed_while_it_is_amended_stays_removed(machine, memory, between):
    root = machine()
    publish_run(root, 1, "2026-11-23")
    pointer = pointers.read(pointers.of_date(root, "2026-11-23"))
    between("change", "published/pinned", lambda: memory.rm_file("/bucket/root/published/2026-11-23.json"))
    pointers.amend(root, pointer)
    assert [name for name in objects(memory) if name.startswith("published")] == ["published/latest.json"]


def test_a_date_that_is_published_while_latest_is_released_stays_the_latest(machine, between):
    root, other = machine(), machine("two")
    first = publish_run(root, 1, "2026-11-21")
    publish_run(root, 2, "2026-11-22")
    pointers.pin(root, pointers.read(pointers.of_date(root, "2026-11-21")))
    between("change", remote_pointers.LATEST, lambda: publish_run(other, 3, "2026-11-24"))
    pointers.release(root)
    assert pointers.latest(machine("three")).date == "2026-11-24"
    pointers.pin(root, pointers.read(pointers.of_date(root, "2026-11-24")))
    assert pointers.latest(root).run != first and pointers.release(root).date == "2026-11-24"


def test_a_directory_that_another_process_has_brought_meanwhile_is_not_brought_again(machine, monkeypatch):
    publish(machine())
    root, downloads = machine("two"), []
    plain, lock = ObjectStore.download, remote_folders.held

    @contextmanager
    def waited(path):
        monkeypatch.setattr(remote_folders, "held", lock)
        remote_folders.bring(remote_of(root), root / "score" / RUN)
        remote_of(root).compared.clear()
        with lock(path):
            yield

    monkeypatch.setattr(ObjectStore, "download", lambda *given: (downloads.append(given[1]), plain(*given)))
    monkeypatch.setattr(remote_folders, "held", waited)
    assert artifacts.verify(root / "score" / RUN)
    assert len(downloads) == len(set(downloads)) == 2
    assert not list((root / "work").glob(RUN))
