"""A small model of drawn weights, and items for it: what the tests of stages 4 and 5 share."""

import numpy as np
import pyarrow as pa

from pipeline.calibration import Calibration
from pipeline.config import Settings
from pipeline.config_catalog import CleanSettings
from pipeline.features import FeatureTransform
from pipeline.model import Model
from pipeline.network import FeedbackNetwork, NetworkConfig
from pipeline.progress import Progress
from pipeline.taxonomy import Taxonomy

TAXONOMY = Taxonomy.of(
    ("genre", "theme"),
    # Zombies stand under two parents; Drama may stop at the genre, Comedy has no theme at all.
    [("Horror", "Zombies"), ("Horror", "Ghosts"), ("Comedy",), ("Drama", "War"), ("Drama", "Zombies"), ("Drama", "-")],
)
TAGS = ("zombies", "farmhouse", "ghost", "laughs", "war", "trenches", "haunted house", "satire")


def features(*, text=(), **changes):
    return Settings(catalog={"text": text}, features={"hash_width": 64, **changes})


def make_model(*, settings=None, seed=7, calibration=None, provenance=None, **network):
    settings = features() if settings is None else settings
    rng = np.random.default_rng(seed)
    rows = [sorted(rng.choice(TAGS, size=3, replace=False)) for _ in range(30)]
    columns = {"tags": pa.array(rows)}
    for column in settings.catalog.text:
        columns[f"text.{column}"] = pa.array([" ".join(row) for row in rows])
    transform = FeatureTransform.fit(pa.table(columns), settings)
    config = NetworkConfig(
        n_vocabulary=transform.n_vocabulary,
        n_features=transform.n_features,
        n_dense=transform.n_dense,
        hidden=8,
        n_classes=TAXONOMY.n_classes,
        **network,
    )
    return Model(
        network=FeedbackNetwork.initialise(config, rng),
        transform=transform,
        taxonomy=TAXONOMY,
        calibration=Calibration(legal=(1.5, 2.0), raw=(1.25, 0.75)) if calibration is None else calibration,
        clean=CleanSettings(),
        provenance={"fingerprint": "f00d"} if provenance is None else provenance,
    )


def make_items(n, *, seed=3, ids=None):
    """Return n clean items: some without tags, some with unseen ones, two thirds labelled, half of these stopped.

    A tag was applied once to five times.
    """
    rng = np.random.default_rng(seed)
    known = np.array([*TAGS, "unheard of"])
    rows = [sorted(rng.choice(known, size=rng.integers(0, 4), replace=False).tolist()) for _ in range(n)]
    genres = [["Horror", "Drama", None][k % 3] for k in range(n)]
    themes = [{"Horror": "Zombies", "Drama": "-", None: None}[genre] for genre in genres]
    return pa.RecordBatch.from_pydict(
        {
            "item_id": pa.array(range(1, n + 1), pa.int64()) if ids is None else pa.array(ids),
            "title": pa.array(
                [None if k % 5 == 4 else f"Film {k} \N{GREEK SMALL LETTER OMEGA}" for k in range(n)], pa.string()
            ),
            "tags": pa.array(rows, pa.list_(pa.string())),
            "tag_counts": pa.array([rng.integers(1, 6, len(row)).tolist() for row in rows], pa.list_(pa.int32())),
            "genre": pa.array(genres, pa.string()),
            "theme": pa.array(themes, pa.string()),
        }
    )


class AtFirst(Progress):
    """Does something once, when the first shard is done."""

    def __init__(self, action):
        self.action = action

    def update(self, done, total=None, **facts):
        action, self.action = self.action, lambda: None
        action()
