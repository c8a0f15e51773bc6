"""Publication: whole or not at all, verified, and pointers that only move forward."""

import errno
import json
import os
from pathlib import Path

import pytest

from pipeline import artifacts, files, manifests, pointers
from pipeline.digests import Digests, fingerprint, sealed, sha256_of
from pipeline.errors import ArtifactError
from tasks.retries import may_pass

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def write_two_files(folder: Path) -> None:
    (folder / "a.txt").write_text("hello")
    (folder / "parts").mkdir()
    (folder / "parts" / "b.txt").write_text("b")


def publish(root: Path, name: str = "f1", write=write_two_files) -> Path:
    folder = root / "clean" / name
    artifacts.publish(folder, write, work=root / "work" / name, facts={"settings": {"x": 1}})
    return folder


def test_a_published_directory_has_its_files_and_a_manifest_of_them(tmp_path):
    folder = publish(tmp_path)
    manifest = artifacts.manifest(folder)
    assert manifest["files"] == {
        "a.txt": {"size": 5, "sha256": HELLO},
        "parts/b.txt": {"size": 1, "sha256": sha256_of(folder / "parts" / "b.txt")},
    }
    assert manifest["settings"] == {"x": 1}
    assert manifest["versions"]["python"].startswith("3.")
    assert manifest["seconds"] >= 0
    assert artifacts.exists(folder)
    assert artifacts.verify(folder) == folder


def test_nothing_temporary_is_left(tmp_path):
    publish(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "work"]
    assert list((tmp_path / "work").iterdir()) == []


def test_what_is_published_is_not_written_again(tmp_path):
    folder = publish(tmp_path)
    publish(tmp_path, write=lambda _: pytest.fail("written twice"))
    assert (folder / "a.txt").read_text() == "hello"


def test_a_writer_that_fails_publishes_nothing_and_keeps_its_checkpoints(tmp_path):
    def write(folder: Path) -> None:
        write_two_files(folder)
        (tmp_path / "work" / "f1" / "checkpoint").write_text("epoch 3")
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        publish(tmp_path, write=write)
    assert not (tmp_path / "clean").exists()
    assert sorted(path.name for path in (tmp_path / "work" / "f1").iterdir()) == ["checkpoint", "lock"]
    assert artifacts.exists(publish(tmp_path))


def test_leftovers_of_a_killed_run_are_not_published(tmp_path):
    leftover = tmp_path / "work" / "f1" / "build"
    leftover.mkdir(parents=True)
    (leftover / "half.txt").write_text("half")
    folder = publish(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "manifest.json", "parts"]


def test_files_are_synced_then_the_manifest_then_one_rename_then_the_parent(tmp_path, monkeypatch):
    calls = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append("sync " + os.path.relpath(path, tmp_path))

    rename = Path.rename
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", lambda self, to: (calls.append(f"rename {self.name}"), rename(self, to))[1])
    publish(tmp_path)
    build = "work/f1/build"
    assert calls == [
        f"sync {build}/parts/b.txt",
        f"sync {build}/parts",
        f"sync {build}/a.txt",
        f"sync {build}",
        f"sync {build}/manifest.json",
        f"sync {build}",
        "sync .",
        "rename build",
        "sync clean",
    ]


def test_a_failed_sync_publishes_nothing_and_says_where_and_what_to_do(tmp_path, monkeypatch):
    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ArtifactError, match=r"clean/f1: cannot be published \(No space left on device\); free space"):
        publish(tmp_path)
    assert not (tmp_path / "clean" / "f1").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "a.txt").write_text("HELLO"), "a.txt: has changed since it was published"),
        (lambda folder: (folder / "a.txt").unlink(), "a.txt: cannot be read"),
        (lambda folder: (folder / "new.txt").write_text("x"), "new.txt: was not published with this directory"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), r"manifest.json: cannot be read \(it has changed"),
        (
            lambda folder: (folder / "manifest.json").write_text(sealed({})),
            "manifest.json: is not a manifest of format 2",
        ),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json: nothing was published there"),
    ],
)
def test_damage_is_found(tmp_path, damage, message):
    folder = publish(tmp_path)
    damage(folder)
    with pytest.raises(ArtifactError, match=message):
        artifacts.verify(folder)


def test_every_damaged_file_is_named(tmp_path):
    folder = publish(tmp_path)
    (folder / "a.txt").write_text("HELLO")
    (folder / "new.txt").write_text("x")
    assert [damage.partition(":")[0] for damage in artifacts.damages(folder)] == [
        str(folder / "a.txt"),
        str(folder / "new.txt"),
    ]


@pytest.mark.parametrize("gone", ["a.txt", "manifest.json"])
def test_a_directory_that_lost_a_file_counts_as_damaged_until_it_is_made_again(tmp_path, gone):
    folder = publish(tmp_path)
    (folder / gone).unlink()
    artifacts.disown(folder)
    assert artifacts.disowned(folder)
    publish(tmp_path)
    assert not artifacts.disowned(folder)
    assert list(artifacts.damages(folder)) == []


def test_a_flipped_bit_in_any_byte_of_a_manifest_or_a_pointer_is_found(tmp_path):
    folder, pointer = publish(tmp_path), tmp_path / "pointer.json"
    pointer.write_text(sealed({"date": "2026-11-23", "run": "r", "folder": "f", "model": "m", "plan": "p"}))
    assert list(artifacts.damages(folder)) == []
    assert pointers.read(pointer) is not None
    for path, read in (
        (folder / "manifest.json", lambda path: artifacts.manifest(path.parent)),
        (pointer, pointers.read),
    ):
        content = path.read_bytes()
        for bit in range(0, 8 * len(content), 7):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(ArtifactError):
                read(path)


def test_a_directory_without_one_of_its_files_does_not_exist_and_is_built_again(tmp_path):
    folder = publish(tmp_path)
    (folder / "a.txt").unlink()
    assert not artifacts.exists(folder)
    publish(tmp_path)
    assert artifacts.verify(folder)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ESTALE, errno.EIO])
def test_what_cannot_be_read_for_a_moment_is_neither_damaged_nor_absent(tmp_path, monkeypatch, code):
    folder = publish(tmp_path)

    def refused(*_):
        raise OSError(code, os.strerror(code))

    for name in ("sha256_of", "unsealed"):
        with monkeypatch.context() as patched:
            patched.setattr(manifests, name, refused)
            with pytest.raises(ArtifactError, match=f"cannot be read .{os.strerror(code)}") as found:
                artifacts.verify(folder)
            assert may_pass(found.value)
            with pytest.raises(ArtifactError, match="cannot be read"):
                list(artifacts.damages(folder))
    monkeypatch.setattr(manifests, "unsealed", refused)
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifacts.exists(folder)


def test_a_file_that_is_not_in_the_manifest_is_not_read(tmp_path):
    with pytest.raises(ArtifactError, match=r"c.txt: is not in manifest.json; files there: a.txt, parts/b.txt"):
        artifacts.verified(publish(tmp_path), "c.txt")


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "plan" / "a.json"
    files.write_text(path, "old", work=tmp_path / "work")
    files.write_text(path, "new", work=tmp_path / "work")
    assert path.read_text() == "new"
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["write.lock"]


def test_what_a_killed_process_has_left_is_written_over(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.json.new").write_text("half of a long te")
    files.write_text(tmp_path / "a.json", "new", work=tmp_path / "work")
    assert (tmp_path / "a.json").read_text() == "new"
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["write.lock"]


def test_work_whose_process_was_killed_after_its_publication_is_swept(tmp_path):
    published, other = "1" * 64, "2" * 64
    publish(tmp_path, published)
    for name in (published, other):
        (tmp_path / "work" / name / "build").mkdir(parents=True)
        (tmp_path / "work" / name / "checkpoint").touch()
    artifacts.sweep(tmp_path)
    assert [path.name for path in (tmp_path / "work").iterdir()] == [other]


def test_a_link_whose_process_was_killed_before_its_rename_leads_no_sweep_to_what_is_published(tmp_path):
    folder = publish(tmp_path)
    (tmp_path / "work" / "latest.new").symlink_to("../clean/f1")
    artifacts.sweep(tmp_path)
    assert artifacts.verify(folder) == folder


def pointer(date: str, run: str) -> pointers.Pointer:
    return pointers.Pointer(date=date, run=run, folder=f"score/{run}", model="m", plan="p")


def test_latest_moves_forward_only(tmp_path):
    for date, run in [("2026-11-22", "r1"), ("2026-11-23", "r2"), ("2026-11-21", "r3")]:
        (tmp_path / "score" / run).mkdir(parents=True)
        pointers.point(tmp_path, pointer(date, run))
    assert pointers.latest(tmp_path) == pointer("2026-11-23", "r2")
    assert pointers.read(pointers.of_date(tmp_path, "2026-11-21")) == pointer("2026-11-21", "r3")
    assert (tmp_path / "published" / "latest").resolve() == tmp_path / "score" / "r2"


def test_an_older_date_goes_on_from_the_run_before_it(tmp_path):
    for date, run in [("2026-11-22", "r1"), ("2026-11-24", "r2"), ("2026-11-20", "r3")]:
        pointers.point(tmp_path, pointer(date, run))
    found = {until: pointers.latest(tmp_path, until=f"2026-11-{until}").run for until in (19, 20, 21, 22, 23, 24, 25)}
    assert found == {19: "r2", 20: "r3", 21: "r3", 22: "r1", 23: "r1", 24: "r2", 25: "r2"}
    (tmp_path / "published" / "pinned.json").write_text((tmp_path / "published" / "2026-11-24.json").read_text())
    assert pointers.latest(tmp_path, until="2026-11-22").run == "r2"


def test_the_same_date_may_get_another_run(tmp_path):
    for run in ("r1", "r2"):
        pointers.point(tmp_path, pointer("2026-11-22", run))
    assert pointers.latest(tmp_path) == pointer("2026-11-22", "r2")


def test_the_link_for_people_is_relative_so_that_the_root_can_be_moved(tmp_path):
    pointers.point(tmp_path, pointer("2026-11-22", "r1"))
    assert str((tmp_path / "published" / "latest").readlink()) == "../score/r1"


def test_the_pointer_of_the_date_is_written_last(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(pointers, "write_text", lambda path, text, *, work: written.append(path.name))
    monkeypatch.setattr(pointers, "replace_link", lambda link, target, *, work: written.append(link.name))
    pointers.point(tmp_path, pointer("2026-11-22", "r1"))
    assert written == ["latest.json", "latest", "latest_model.h5", "2026-11-22.json"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_where_there_are_no_links_the_pointers_stand_without_them(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    pointers.point(tmp_path, pointer("2026-11-22", "r1"))
    assert pointers.latest(tmp_path) == pointers.read(pointers.of_date(tmp_path, "2026-11-22"))
    assert sorted(path.name for path in (tmp_path / "published").iterdir()) == ["2026-11-22.json", "latest.json"]


def test_a_link_that_fails_otherwise_is_an_error_before_the_pointer_of_the_date(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(ArtifactError, match="No space left"):
        pointers.point(tmp_path, pointer("2026-11-22", "r1"))
    assert not pointers.of_date(tmp_path, "2026-11-22").exists()


def test_a_damaged_pointer_is_told(tmp_path):
    path = pointers.of_date(tmp_path, "2026-11-22")
    path.parent.mkdir()
    path.write_text('{"date": "2026-11-22"}')
    with pytest.raises(ArtifactError, match=r"2026-11-22.json: is not a pointer"):
        pointers.read(path)


def test_a_fingerprint_tells_true_from_one_and_does_not_take_what_json_does_not_know():
    assert fingerprint({"a": 1}) != fingerprint({"a": True})
    with pytest.raises(TypeError):
        fingerprint({"a": Path("x")})


def test_digests_are_remembered_until_size_or_time_change(tmp_path, monkeypatch):
    path, memory = tmp_path / "a.csv", tmp_path / "digests.json"
    path.write_text("hello")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr("pipeline.digests.RECENT_SECONDS", -1)
    first = Digests(memory)
    assert first.of(path) == HELLO
    memory.write_text(first.as_json())
    monkeypatch.setattr("pipeline.digests.sha256_of", lambda path: "read again")
    assert Digests(memory).of(path) == HELLO
    os.utime(path, (1_000_000_001, 1_000_000_001))
    assert Digests(memory).of(path) == "read again"
    path.unlink()
    assert Digests(memory).as_json() == "{}"  # of a file that is gone nothing is kept


def test_a_copy_with_the_size_and_time_of_the_file_before_it_is_read_again(tmp_path, monkeypatch):
    path, copy = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("hello")
    copy.write_text("other")
    for file in (path, copy):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr("pipeline.digests.RECENT_SECONDS", -1)
    digests = Digests(tmp_path / "digests.json")
    assert digests.of(path) == HELLO
    copy.replace(path)
    assert digests.of(path) == sha256_of(path) != HELLO


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("hello")
    digests = Digests(tmp_path / "digests.json")
    digests.of(path)
    assert json.loads(digests.as_json()) == {}


def test_a_damaged_memory_of_digests_is_an_empty_one(tmp_path):
    memory = tmp_path / "digests.json"
    (tmp_path / "a.csv").write_text("hello")
    for damage in ("{", "[1]", '{"a": 1}'):
        memory.write_text(damage)
        assert Digests(memory).of(tmp_path / "a.csv") == HELLO
