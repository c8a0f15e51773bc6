"""From the shell: `python -m pipeline predict zombies farmhouse "black and white" --model model.h5`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.errors import PipelineError

BAR = 30  # characters of a bar that stands for certainty


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 1 where a PipelineError was told on stderr."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Use a trained model from the shell.")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="print the best paths of one item, given its tags")
    predict.add_argument("tags", nargs="+", metavar="TAG", help="a tag as people type it")
    predict.add_argument("--model", required=True, metavar="FILE", help="a model.h5 of the stage 'export'")
    predict.add_argument("--best", type=int, default=3, metavar="N", help="how many paths (3)")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.best <= 100:
        parser.error(f"--best {chosen.best}: 1 to 100 is allowed")
    try:
        print(predict_text(chosen.tags, model=chosen.model, n_best=chosen.best))
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def predict_text(tags: Sequence[str], *, model: str, n_best: int) -> str:
    """Return a line a path, and a last line where tags are unknown to the model."""
    from pipeline.model import load_model

    found = load_model(model).predict([tags], n_best=n_best)[0]
    lines = [
        bar_line(path, probability)
        for path, probability in zip(found.best_paths, found.best_path_probabilities, strict=True)
    ]
    if found.n_unseen_tags or not found.n_tags:
        lines.append(f"({found.n_unseen_tags} of {found.n_tags} tags are unknown to the model)")
    return "\n".join(lines)


def bar_line(path: Sequence[str], probability: float) -> str:
    """Return a bar, the probability and the path.

    >>> bar_line(("Horror", "Zombies"), 0.1)
    '███                             10.0%  Horror > Zombies'
    """
    bar = "█" * round(probability * BAR)
    return f"{bar:<{BAR}}  {probability:>5.1%}  {' > '.join(path) or '(no label)'}"


if __name__ == "__main__":
    sys.exit(main())
