"""From the shell: `python -m pipeline predict zombies farmhouse --model model.h5`, and `score FILE` for many items."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError, SettingsError

BAR = 30  # characters of a bar that stands for certainty


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 1 where a PipelineError was told on stderr."""
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    # Plug-ins of pydantic are looked for among all that is installed, and there is none for these settings.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if chosen.command == "predict" and not 1 <= chosen.best <= 100:
        parser.error(f"--best {chosen.best}: 1 to 100 is allowed")
    try:
        print(score_text(chosen) if chosen.command == "score" else predict_text(chosen))
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Use a trained model from the shell.")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="print the best paths of one item, given its tags")
    predict.add_argument("tags", nargs="+", metavar="TAG", help="a tag as people type it")
    predict.add_argument("--best", type=int, default=3, metavar="N", help="how many paths (3)")
    predict.add_argument("--explain", action="store_true", help="what each tag contributed to the best path")
    score = commands.add_parser("score", help="score the items of a file into a new directory")
    score.add_argument(
        "file", metavar="FILE", help="items: a file, a glob or a directory; CSV, TSV, JSON lines, Parquet"
    )
    score.add_argument("--out", required=True, metavar="DIR", help="a directory that does not exist yet")
    score.add_argument("--tags", default="", metavar="FILE", help="a file of tags in the long form")
    score.add_argument("--labels", default="", metavar="FILE", help="a file of labels; they stand beside the predicted")
    score.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.NAME=VALUE",
        help="a setting of [catalog], [clean] or [scoring], such as catalog.item_id=ID; columns are called as in the "
        "training items otherwise",
    )
    score.add_argument("--workers", metavar="N", help="processes that score (one for each physical core)")
    for command in (predict, score):
        command.add_argument("--model", required=True, metavar="FILE", help="a model.h5 of the stage 'export'")
    return parser


def predict_text(chosen: argparse.Namespace) -> str:
    """Return a line a path, one where tags are unknown to the model, and where it was asked for one a tag."""
    from pipeline.model import load_model

    model = load_model(chosen.model)
    found = model.predict([chosen.tags], n_best=chosen.best)[0]
    lines = [
        bar_line(path, probability)
        for path, probability in zip(found.best_paths, found.best_path_probabilities, strict=True)
    ]
    if found.n_unseen_tags or not found.n_tags:
        lines.append(f"({found.n_unseen_tags} of {found.n_tags} tags are unknown to the model)")
    if chosen.explain:
        from pipeline.explain import contributions

        lines += ["", f"What each tag adds to {path_text(found.path)} (the change when it is left out):"]
        lines += [change_line(tag, change) for tag, change in contributions(model, chosen.tags)]
    return "\n".join(lines)


def score_text(chosen: argparse.Namespace) -> str:
    """Score a file, and return what came of it."""
    from pipeline.progress import stage_progress
    from pipeline.score_file import score_file

    settings = parse_settings(chosen.set)
    given = {name: value for name in ("tags", "labels", "workers") if (value := getattr(chosen, name))}
    settings["scoring"] = {**settings.get("scoring", {}), **given}
    out = Path(chosen.out)
    with stage_progress("Score") as progress:
        done = score_file(chosen.file, model=Path(chosen.model), out=out, settings=settings, progress=progress)
    counts = f"{done['n_items']:,} items scored, {done['n_without_tags']:,} of them without tags"
    return f"{counts}, {done['n_rejected']:,} rejected\n{out / 'scores.parquet'}\n{out / 'scores.h5'}"


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return settings by section and name. Raises SettingsError for anything but SECTION.NAME=VALUE.

    >>> parse_settings(["catalog.item_id=ID", "catalog.title="])
    {'catalog': {'item_id': 'ID', 'title': ''}}
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        section, point, name = place.strip().partition(".")
        if not (equals and point and section and name):
            raise SettingsError(f"--set {text}: is not of the form SECTION.NAME=VALUE, such as catalog.item_id=ID")
        found.setdefault(section, {})[name] = value.strip()
    return found


def bar_line(path: Sequence[str], probability: float) -> str:
    """Return a bar, the probability and the path.

    >>> bar_line(("Horror", "Zombies"), 0.1)
    '███                             10.0%  Horror > Zombies'
    """
    bar = "█" * round(probability * BAR)
    return f"{bar:<{BAR}}  {probability:>5.1%}  {path_text(path)}"


def change_line(tag: str, change: float) -> str:
    """Return a bar, the change in percentage points and the tag.

    >>> change_line("zombies", 0.1), change_line("satire", -0.002)
    ('███                            +10.0   zombies', '                                -0.2   satire')
    """
    bar = "█" * round(abs(change) * BAR)
    return f"{bar:<{BAR}} {100 * change:>+6.1f}   {tag}"


def path_text(path: Sequence[str]) -> str:
    """Return a path as people read it."""
    return " > ".join(path) or "(no label)"


if __name__ == "__main__":
    # What imports leave behind stays: to look through it for garbage costs a tenth of the time of a prediction.
    gc.set_threshold(100_000, 50, 50)
    sys.exit(main())
