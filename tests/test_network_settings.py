"""Every setting of [network] in the main job, from raw tags to the model file."""

import json

import pytest
from small_job import SETTINGS, Project, write_items

from pipeline import load_model

EVERYTHING = """
[network]
hidden = 4
norm = batch
wide = true
label_feedback = true
parent_mask = true
experts = 3
top_k = 2
experts_at = outputs
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("everything"))
    write_items(project.folder / "items.csv")
    settings = SETTINGS.replace("[network]\nhidden = 4\n", "").replace("epochs = 1", "epochs = 8")
    (project.folder / "luigi.cfg").write_text(settings + EVERYTHING)
    project.score()
    return project


def test_a_network_with_all_its_parts_goes_through_the_whole_job(project):
    model = load_model(project.root / "published" / "latest_model.h5")
    assert model.network.config.parents == ((0, 1, 1),)  # drama: family; horror: ghosts, zombies
    assert [found.path for found in model.predict([["zombie", "gore"]])] == [("horror", "zombies")]
    assert {"head_2", "wide_2", "parents_2", "input_2", "gate"} <= set(model.network.names)


def test_the_shares_of_the_experts_are_recorded(project):
    (file,) = project.root.glob("train/*/training.json")
    shares = json.loads(file.read_text())["expert_shares"]
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(2, abs=1e-5)
