"""Suite 7: bits that flip, files that are cut, missing or too many: found by who reads, made good by the next run."""

import random
from pathlib import Path

from nights import TONIGHT, Tonight, kill, rounds
from test_stops import epochs_go_by

from pipeline import artifacts, manifests, pointers, verification
from tasks.__main__ import main as look_after

CUT = 64 << 10
# Settings that make the stages run again which read what an earlier one has published.
READERS = {
    "clean": ("--features-max-tags", "9"),
    "features": ("--training-seed", "8"),
    "train": ("--export-storage", "float16"),
    "export": ("--scoring-n-best", "1"),
}


def published_files(root: Path) -> list[Path]:
    """Return the files of all directories, the pointers and the plans."""
    folders = [folder for folder in root.iterdir() if folder.is_dir() and folder.name != "work"]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def found(root: Path) -> list[str]:
    """Return what `python -m tasks verify` prints of the damages."""
    damages = list(verification.damaged_pointers(root))
    return damages + [line for folder in verification.published(root) for line in artifacts.damages(folder)]


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@rounds(150, 1000)
def test_a_flipped_bit_or_a_cut_in_any_published_file_is_found(tonight, tmp_path, figure, n):
    night = tonight.undisturbed.copy(tmp_path / "night")
    assert found(night.root) == []
    rng, files, cuts = random.Random(7), published_files(night.root), 0
    for at in range(n):
        path = files[at % len(files)]
        bit = rng.randrange(path.stat().st_size * 8)
        flip(path, bit)
        assert any(str(path) in line or path.name in line for line in found(night.root)), (path, bit)
        flip(path, bit)
    for path in files:
        content = path.read_bytes()
        for size in {0, len(content) - 1, *range(CUT, len(content), CUT)}:
            path.write_bytes(content[:size])
            assert found(night.root), (path, size)
            cuts += 1
        path.write_bytes(content)
    assert found(night.root) == []
    figure(f"7 damage: {n} flipped bits and {cuts} cuts over {len(files)} files: all found")


def damage(kind: str, path: Path, rng: random.Random) -> None:
    if kind == "flip":
        flip(path, rng.randrange(path.stat().st_size * 8))
    elif kind == "missing":
        path.unlink()
    else:
        path.with_name("extra.parquet").write_bytes(b"PAR1")


def verified_and_rebuilt(tonight: Tonight, folder: Path, path: Path, kind: str) -> None:
    """Damage a file, let `verify` say so, and check that the next run leaves all as it was."""
    night = tonight.undisturbed.copy(folder)
    damage(kind, night.root / path, random.Random(str(path)))
    assert look_after(["verify", "--storage-root", str(night.root)]) == 1
    night.succeeds()
    assert look_after(["verify", "--storage-root", str(night.root)]) == 0
    tonight.check(night)


@rounds(1, 45)
def test_what_verify_finds_is_made_anew_by_the_next_run(tonight, tmp_path, figure, n, capsys):
    latest = pointers.latest(tonight.undisturbed.root)
    identities = [path for path in published_files(tonight.undisturbed.root) if of_the_run(tonight, path, latest)]
    rng = random.Random(3)
    for at in range(n):
        path = rng.choice(identities).relative_to(tonight.undisturbed.root)
        kinds = {"published": ("flip",), "plan": ("flip", "missing")}.get(path.parts[0], ("flip", "missing", "extra"))
        kind = kinds[at % len(kinds)]
        verified_and_rebuilt(tonight, tmp_path / str(at), path, kind)
    figure(f"7 damage found by verify: {n} files flipped, missing or too many: {n} made anew, all equal")


def of_the_run(tonight: Tonight, path: Path, latest: pointers.Pointer) -> bool:
    """Return whether tonight's run needs the file: yesterday's are not made anew."""
    before = tonight.yesterday.root / path.relative_to(tonight.undisturbed.root)
    return path.name != f"{pointers.latest(tonight.yesterday.root).date}.json" and (
        not before.exists() or path.name == "latest.json"
    )


@rounds(1, 24)
def test_a_stage_that_reads_what_is_damaged_says_so_and_the_next_run_makes_it_anew(tonight, tmp_path, figure, n):
    rng, wanted = random.Random(5), {}
    for at in range(n):
        stage = tuple(READERS)[at % len(READERS)]
        flags = (*TONIGHT, *READERS[stage])
        if stage not in wanted:
            wanted[stage] = tonight.undisturbed.copy(tmp_path / f"wanted-{stage}")
            wanted[stage].succeeds(*flags)
        night = tonight.undisturbed.copy(tmp_path / str(at))
        folder = night.root / tonight.published_by(stage).parent
        path = rng.choice([path for path in folder.rglob("*") if path.is_file() and path.name != manifests.MANIFEST])
        flip(path, rng.randrange(path.stat().st_size * 8))
        assert night.code(*flags) == 30
        said = night.log.read_text()
        assert f"{path.relative_to(night.folder)}: has changed since it was published; run the same command" in said
        night.succeeds(*flags)
        Tonight(tonight.undisturbed, wanted[stage], {}).check(night)
    figure(f"7 damage met by a stage: {n} of {n} ended with 30 and were made anew by the next run, all equal")


@rounds(1, 12)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tonight, tmp_path, figure, n):
    for at in range(n):
        night = tonight.yesterday.copy(tmp_path / str(at))
        process = night.begin()
        epochs_go_by(process, night, 2 + at % 8)
        kill(process)
        (newest,) = (night.root / "work").glob("*/checkpoint.h5")
        flip(newest, random.Random(at).randrange(newest.stat().st_size * 8))
        night.succeeds()
        assert "checkpoint.h5 is damaged and is not used\n" in night.log.read_text()
        assert "before-checkpoint.h5" in night.log.read_text()
        tonight.check(night)
    figure(f"7 damaged checkpoint: {n} of {n} went on from the one before, all equal")
