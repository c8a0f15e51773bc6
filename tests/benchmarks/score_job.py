"""What score.py measures of the whole job, each in a process of its own: python tests/benchmarks/score_job.py WHAT ...

The catalog: item_id, title, and ten raw tags an item by Zipf's law from 22,000, in eight spellings, of which the model
knows 20,000; its 10,000 sparse features are the most frequent words of tags. The model is drawn, not trained: speed
does not depend on its weights.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

N_TAGS, N_RAW, CLASSES = 10, 22_000, (20, 120, 600)
SHAPES = ("Zombies {}", "space opera {}", "New_York {}", "Sci-Fi {}", "heist {}", "ROBOTS {}", "slow burn {}", "GO {}")
PREDICTED = 8_192  # rows that fastText is asked for at once


def write_items(path: Path, n_items: int, *, seed: int = 7) -> None:
    """Write the catalog."""
    rng = np.random.default_rng(seed)
    names = pa.array([SHAPES[place % len(SHAPES)].format(f"{place:x}") for place in range(N_RAW)])
    upto = np.cumsum(1 / np.arange(1, N_RAW + 1))
    schema = pa.schema([("item_id", pa.int64()), ("title", pa.string()), ("tags", pa.list_(pa.string()))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n_items, 100_000):
            n = min(100_000, n_items - start)
            drawn = np.searchsorted(upto, rng.random(n * N_TAGS) * upto[-1])
            offsets = pa.array(np.arange(0, n * N_TAGS + 1, N_TAGS), pa.int32())
            tags = pa.ListArray.from_arrays(offsets, names.take(pa.array(drawn)))
            ids = np.arange(start, start + n)
            titles = pa.array([f"Item {place}" for place in ids])
            writer.write_table(pa.table({"item_id": ids, "title": titles, "tags": tags}, schema=schema))


def write_model(path: Path, items: Path) -> None:
    """Write a model of 20,000 tags and 10,000 words of them."""
    from pipeline.calibration import Calibration
    from pipeline.cleaning import clean_tags
    from pipeline.config import Settings
    from pipeline.features import FeatureTransform
    from pipeline.model import Model
    from pipeline.network import FeedbackNetwork, NetworkConfig
    from pipeline.taxonomy import Taxonomy

    limits = {"max_words": 10_000, "max_vocabulary": 20_000, "min_count": 1, "min_document_count": 1}
    settings = Settings(features={"blocks": "tag_words", **limits})
    cleaned = clean_tags(pq.read_table(items)["tags"].combine_chunks(), settings.clean)
    transform = FeatureTransform.fit(pa.table({"tags": cleaned.tags}), settings)
    paths = [(f"genre {place // 30}", f"subgenre {place // 5}", f"theme {place}") for place in range(CLASSES[-1])]
    taxonomy = Taxonomy.of(("genre", "subgenre", "theme"), paths)
    sizes = {"n_vocabulary": transform.n_vocabulary, "n_features": transform.n_features, "n_dense": 0}
    config = NetworkConfig(**sizes, hidden=64, n_classes=taxonomy.n_classes)
    model = Model(
        network=FeedbackNetwork.initialise(config, np.random.default_rng(1)),
        transform=transform,
        taxonomy=taxonomy,
        calibration=Calibration(legal=(1.5, 1.2, 1.1), raw=(1.0, 1.0, 1.0)),
        clean=settings.clean,
        provenance={"fingerprint": "bench"},
    )
    model.save(path)


def whole_job(items: str, model: str, out: str, workers: str) -> dict[str, Any]:
    """Score a file of raw items as `python -m pipeline score` does: cleaned where they are scored."""
    from pipeline.score_file import score_file

    one_thread_of_arrow(int(workers))
    started = time.perf_counter()
    done = score_file(items, model=Path(model), out=Path(out), settings={"scoring": {"workers": workers}})
    return {"seconds": time.perf_counter() - started, "items": done["n_items"]}


def stages(items: str, model: str, out: str, workers: str) -> dict[str, Any]:
    """Clean and score as the nightly job does, one stage after the other: stage 1 has DuckDB's joins."""
    from pipeline.cleaning import clean
    from pipeline.digests import sha256_of
    from pipeline.model import load_rules
    from pipeline.progress import SILENT
    from pipeline.score_catalog import score
    from pipeline.score_file import settings_for

    one_thread_of_arrow(int(workers))
    settings, lists = load_rules(Path(model), settings_for(items, Path(model), {"scoring": {"workers": workers}}))
    cleaned, scored = (Path(out) / name for name in ("clean", "scored"))
    for folder in (cleaned, scored):
        folder.mkdir(parents=True)
    started = time.perf_counter()
    clean(settings, cleaned, expected={items: sha256_of(Path(items))}, role="scoring", lists=lists)
    between = time.perf_counter()
    score(settings, Path(model), cleaned, scored, run="bench", progress=SILENT)
    return {"clean_seconds": between - started, "seconds": time.perf_counter() - between}


def fasttext_job(items: str, model: str, out: str, _: str) -> dict[str, Any]:
    """Read the items, ask fastText for the best label of each, write it: `predict` alone is told apart."""
    import fasttext

    network = fasttext.load_model(model)
    seconds, started, labels, probabilities = 0.0, time.perf_counter(), [], []
    for batch in pq.ParquetFile(items).iter_batches(columns=["tags"], batch_size=PREDICTED, use_threads=False):
        texts = [text_of(tags) for tags in batch["tags"].to_pylist()]
        before = time.perf_counter()
        found, sure = network.predict(texts)
        seconds += time.perf_counter() - before
        labels += [best[0] for best in found]
        probabilities.append(np.concatenate(sure))
    pq.write_table(pa.table({"label": labels, "probability": np.concatenate(probabilities)}), out)
    return {"seconds": time.perf_counter() - started, "predict_seconds": seconds, "items": len(labels)}


def train_fasttext(items: Path, path: Path) -> None:
    """Train fastText on some items with drawn labels: 600 of them, 64 dimensions, softmax, words as they are."""
    import fasttext

    rng = np.random.default_rng(1)
    text = path.with_suffix(".txt")
    with text.open("w") as file:
        for tags in pq.read_table(items)["tags"].to_pylist():
            file.write(f"__label__{rng.integers(CLASSES[-1])} {text_of(tags)}\n")
    options = {"dim": 64, "epoch": 1, "loss": "softmax", "minCount": 1, "thread": 1, "verbose": 0}
    for attempt in range(30):
        # fastText 0.9.3 fails every other time with "Encountered NaN", on the same file by the same settings.
        with suppress(RuntimeError):
            fasttext.train_supervised(str(text), lr=0.1 * 0.8**attempt, **options).save_model(str(path))
            return
    raise RuntimeError("fastText could not be trained")


def text_of(tags: list[str]) -> str:
    """Return an item as fastText reads it: a word for each tag."""
    return " ".join(tag.replace(" ", "_") for tag in tags)


def one_thread_of_arrow(workers: int) -> None:
    """Where one core is measured, Arrow has one thread as well."""
    if workers == 1:
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)


def main(what: str, *arguments: str) -> None:
    """Print what was measured as JSON, with the peak of resident memory, of this process and of one of its children."""
    measured = {"job": whole_job, "stages": stages, "fasttext": fasttext_job}[what](*arguments)
    # Not by getrusage: a process begins with the peak of the one that started it. Of the workers it is at most that.
    status = Path("/proc/self/status").read_text().split()
    peak = 1024 * int(status[status.index("VmHWM:") + 1])
    worker_peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({**measured, "peak": peak, "worker_peak": worker_peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
