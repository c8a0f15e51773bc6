"""An ensemble through the luigi command: members are trained at once, each alone, and only those that are not there."""

import json
import shutil

import pytest
from small_job import DATE, Project

from pipeline import artifacts, pointers
from pipeline.model import load_model

THREE = ("--training-members", "3", "--workers", "3")


def trained(project: Project) -> set[str]:
    return {path.parent.name for path in project.root.glob("train/*/manifest.json")}


@pytest.fixture(scope="module")
def three_members(first_run, tmp_path_factory) -> tuple[Project, set[str]]:
    """A project whose network became an ensemble of three, and what had been trained before."""
    folder = tmp_path_factory.mktemp("three") / "project"
    shutil.copytree(first_run[0].folder, folder, symlinks=True)
    grown = Project(folder)
    before = trained(grown)
    grown.score(*THREE)
    return grown, before


@pytest.fixture
def ensemble(three_members, tmp_path) -> Project:
    """A copy of a project with three members."""
    shutil.copytree(three_members[0].folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def test_the_single_network_stays_as_the_first_of_three_members(three_members):
    project, before = three_members
    export = artifacts.manifest(project.root / "export" / pointers.latest(project.root).model)
    members = {name: value for name, value in export["upstreams"].items() if name.startswith("train")}
    assert list(members) == ["train", "train_2", "train_3"]
    assert {members["train"]} == before
    assert trained(project) == set(members.values())
    seeds = [
        artifacts.manifest(project.root / "train" / name)["settings"]["training"]["seed"] for name in members.values()
    ]
    assert seeds == [7, 1_000_010, 2_000_013]


def test_the_model_holds_them_all_and_the_evaluation_says_how_each_does(three_members):
    project, _ = three_members
    folder = project.root / "export" / pointers.latest(project.root).model
    assert len(load_model(folder / "model.h5").network.members) == 3
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert [sorted(member["levels"]) for member in evaluation["members"]] == [["genre", "theme"]] * 3
    assert evaluation["parity"] <= 1e-5


def test_again_with_the_same_members_does_nothing(ensemble):
    before = ensemble.results()
    assert "nothing to do" in ensemble.score(*THREE)
    assert ensemble.stages_since(before) == []


def test_a_fourth_member_is_trained_alone(ensemble):
    before = ensemble.results()
    ensemble.score("--training-members", "4", "--workers", "3")
    assert ensemble.stages_since(before) == ["train", "export", "score"]


@pytest.mark.slow
def test_a_member_that_fails_leaves_the_others_complete_and_alone_runs_again(ensemble):
    export = artifacts.manifest(ensemble.root / "export" / pointers.latest(ensemble.root).model)
    first, second, third = (export["upstreams"][name] for name in ("train", "train_2", "train_3"))
    for stage in ("export", "score", f"train/{second}", f"train/{third}"):
        shutil.rmtree(ensemble.root / stage)
    blocked = ensemble.root / "work" / second  # a file where the second member would work
    blocked.write_text("")
    code, _, err = ensemble.run("ScoreCatalog", "--date", DATE, *THREE)
    assert code == 30
    assert f"TrainModel: {blocked.relative_to(ensemble.folder)}" in err
    assert trained(ensemble) == {first, third}
    blocked.unlink()
    before = ensemble.results()
    ensemble.score(*THREE)
    assert ensemble.stages_since(before) == ["train", "export", "score"]
    assert trained(ensemble) == {first, second, third}
