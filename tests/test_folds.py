"""Folds of the training part: each item is held out once, by one member, which has not learned from it."""

import itertools
import json

import numpy as np
import pytest
from shard_folders import write_folder

from pipeline.calibration import fit
from pipeline.config import Settings, make_settings
from pipeline.ensemble import together
from pipeline.errors import SettingsError, TrainingError
from pipeline.examples import Examples, chunks
from pipeline.export import calibrate, unseen_of
from pipeline.folds import Fold, divided
from pipeline.network import FeedbackNetwork, NetworkConfig
from pipeline.parts import open_parts
from pipeline.progress import SILENT
from pipeline.taxonomy import Taxonomy
from pipeline.training import train

LADDER = Taxonomy.of(("genre", "theme"), [("Drama", "War"), ("Drama", "Love"), ("Horror", "Ghosts"), ("Horror", "-")])


def numbered(n):
    """Return items that have their position as their tag."""
    return Examples.of(np.arange(n)[:, None], np.zeros((n, 1)))


def positions(source, size):
    return [int(tag) for part in chunks(source, size) for tag in part.tag_index[:, 0]]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_each_item_is_held_out_by_one_member_and_learned_from_by_all_others(size):
    folds = [divided(numbered(11), numbered(0), member=member, members=3) for member in (1, 2, 3)]
    assert [positions(fold, size) for _, fold in folds] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]
    assert positions(folds[1][0], size) == [0, 2, 3, 5, 6, 8, 9]
    for training, fold in folds:
        assert len(training) + len(fold) == 11
        assert (len(training), len(fold)) == (len(positions(training, size)), len(positions(fold, size)))


def test_more_members_than_items_leaves_folds_empty():
    assert [len(Fold(numbered(2), number, 3, held_out=True)) for number in (1, 2, 3)] == [1, 1, 0]


def test_items_for_validation_are_refused():
    with pytest.raises(TrainingError, match=r"cross_fit: 4 items are for validation"):
        divided(numbered(11), numbered(4), member=1, members=3)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"training": {"cross_fit": True}, "clean": {"validation_share": 0}}, "cross_fit: one member has no other"),
        ({"training": {"cross_fit": True, "members": 3}}, r"training\.cross_fit: \[clean\] validation_share = 0\.15"),
    ],
)
def test_settings_that_do_not_fit_are_refused(sections, message):
    with pytest.raises(SettingsError, match=message):
        make_settings(sections)


def test_a_member_trains_without_its_fold_and_is_validated_on_it(tmp_path):
    items = write_folder(tmp_path / "features", 60, shard_items=25, held_out=0)
    learning = {"cross_fit": True, "members": 3, "epochs": 1, "compile_mode": "fast_compile"}
    settings = Settings(catalog={"levels": ("a", "b")}, clean={"validation_share": 0}, training=learning)
    (tmp_path / "trained").mkdir()
    train(settings, items, tmp_path / "trained", member=2, progress=SILENT)
    facts = json.loads((tmp_path / "trained" / "training.json").read_text())
    assert (facts["n_training_items"], facts["n_validation_items"]) == (40, 20)


def test_the_temperatures_are_fitted_to_what_each_member_says_of_its_own_fold(tmp_path):
    data = open_parts(write_folder(tmp_path / "features", 60, shard_items=25, held_out=0))
    widths = data.widths
    config = NetworkConfig(widths.n_vocabulary, widths.n_features, widths.n_dense, 8, tuple(widths.n_classes))
    members = [FeedbackNetwork.initialise(config, np.random.default_rng(seed)) for seed in range(3)]
    ladder = Taxonomy.of(("a", "b"), list(itertools.product("xyz", "12")))
    assert ladder.n_classes == config.n_classes
    found = calibrate(unseen_of(together(members), data, cross_fit=True), ladder)
    items = data.train.read(0, 60)
    said = [member.logits(items.inputs) for member in members]
    unseen = [np.stack([said[place % 3][level][place] for place in range(60)]) for level in range(2)]
    expected = fit(unseen, items.labels, ladder)
    assert found.legal == pytest.approx(expected.legal, rel=1e-4)
    assert found.raw == pytest.approx(expected.raw, rel=1e-4)
