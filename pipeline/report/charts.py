"""Charts as plain data that Plotly.js draws; colours of text and grid are the page's, which knows dark and light.

Names from the catalog are escaped here: Plotly reads a few HTML tags in what it writes.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.report.held_out import Curve
from pipeline.report.scored import N_BINS, Path_
from pipeline.report.tables import Table

# Eight colours that people with any kind of colour vision tell apart. Source: Okabe and Ito 2008; Wong 2011.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a", "#b5a900")
# Five steps of cividis, dark to light. Source: Nunez et al. 2018, doi 10.1371/journal.pone.0199239.
STEPS = ("#00224e", "#434e6c", "#7d7c78", "#bcae6c", "#fee838")
UNKNOWN, CLEAR = "#c9c9c9", "rgba(0,0,0,0)"
MAX_NODES = 4000  # of a treemap: the largest
MAX_CLASSES = 60  # of a heat map
MAX_WRITTEN = 20  # up to which its cells have numbers


@dataclass(frozen=True)
class Chart:
    """A chart, what it says in a sentence, and the numbers behind it as a table."""

    name: str
    title: str
    says: str
    figure: dict[str, Any]
    table: Table | None = None
    other: dict[str, Any] | None = None  # what a button shows in its place


def escaped(text: str) -> str:
    """Return a name as Plotly writes it to the letter.

    >>> escaped("<b>R&B</b>")
    '&lt;b&gt;R&amp;B&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def lines(
    columns: Mapping[str, Sequence[float | None]], *, y_title: str, chosen: int, percent: bool = False
) -> dict[str, Any]:
    """Return curves over the epochs from 1; those of one level share a colour, and what is of training is dashed."""
    bases = list(dict.fromkeys(name.rpartition(", ")[0] for name in columns))
    traces = []
    for name, values in columns.items():
        base, _, part = name.rpartition(", ")
        dash = "dot" if part == "training" else "solid"
        line = {"color": COLOURS[bases.index(base) % len(COLOURS)], "dash": dash, "width": 2}
        numbers = {"x": list(range(1, len(values) + 1)), "y": [*values]}
        traces.append({"type": "scatter", "mode": "lines", "name": escaped(name), "line": line, **numbers})
    mark = {"type": "line", "x0": chosen, "x1": chosen, "y0": 0, "y1": 1, "yref": "paper"}
    note = {"x": chosen, "y": 1, "yref": "paper", "text": f"epoch {chosen}", "showarrow": False, "yanchor": "bottom"}
    axis: dict[str, Any] = {"title": {"text": y_title}, "rangemode": "tozero"}
    axis |= {"tickformat": ".0%", "range": [0, 1]} if percent else {}
    layout = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": axis, "annotations": [note]}
    return {"data": traces, "layout": layout | {"shapes": [{**mark, "line": {"dash": "dash", "color": "#8a8a8a"}}]}}


def treemap(counts: Mapping[Path_, int], accuracies: Mapping[Path_, tuple[int, int]], *, root: str) -> dict[str, Any]:
    """Return the tree of labels: area by items, colour by the share of the held-out items that are right."""
    nodes = with_parents(counts)
    largest = sorted(nodes, key=lambda path: (-nodes[path], path))[:MAX_NODES]
    kept = set(largest)
    shown = [path for path in largest if path[:-1] in kept or len(path) == 1]
    total = sum(counts.values())
    keys = {path: str(place) for place, path in enumerate(shown, start=1)}
    colours = [CLEAR, *(colour(accuracies.get(path)) for path in shown)]
    trace = {
        "type": "treemap",
        "ids": ["0", *keys.values()],
        "labels": [escaped(root), *(escaped(path[-1]) for path in shown)],
        "parents": ["", *(keys.get(path[:-1], "0") for path in shown)],
        "values": [total, *(nodes[path] for path in shown)],
        "text": ["", *(_accuracy(accuracies.get(path)) for path in shown)],
        "marker": {
            "colors": colours,
            "line": {"width": 1, "color": "rgba(128,128,128,0.6)"},
            "pattern": {"shape": ["/" if each == UNKNOWN else "" for each in colours], "solidity": 0.2},
        },
        "branchvalues": "total",
        "texttemplate": "%{label}<br>%{value:,}<br>%{text}",
        "hovertemplate": "%{label}<br>%{value:,} items<br>%{text}<extra></extra>",
        "maxdepth": 3,
        "tiling": {"pad": 3},
    }
    return {"data": [trace], "layout": {"margin": {"l": 4, "r": 4, "t": 28, "b": 4}, "height": 580}}


def with_parents(counts: Mapping[Path_, int]) -> dict[Path_, int]:
    """Return the items of every class: those of a path count for all above it.

    >>> with_parents({("a", "b"): 2, ("a",): 1})
    {('a',): 3, ('a', 'b'): 2}
    """
    nodes: dict[Path_, int] = {}
    for path, n in counts.items():
        for depth in range(1, len(path) + 1):
            nodes[path[:depth]] = nodes.get(path[:depth], 0) + n
    return nodes


def colour(found: tuple[int, int] | None) -> str:
    """Return the colour of an accuracy, of items and right ones; grey where no item was held out.

    >>> colour((10, 10)), colour((10, 0)), colour((0, 0))
    ('#fee838', '#00224e', '#c9c9c9')
    """
    if found is None or not found[0]:
        return UNKNOWN
    return STEPS[min(len(STEPS) - 1, int(found[1] / found[0] * len(STEPS)))]


def _accuracy(found: tuple[int, int] | None) -> str:
    if found is None or not found[0]:
        return "none held out"
    return f"{found[1] / found[0]:.0%} right of {found[0]:,}"


def heat(names: Sequence[str], counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return which top label is taken for which, in shares of each row, the most frequent labels first."""
    order = np.argsort(-counts.sum(axis=1), kind="stable")[:MAX_CLASSES]
    table = counts[np.ix_(order, order)]
    shares = table / np.maximum(counts[order].sum(axis=1, keepdims=True), 1)
    shown = [escaped(names[k]) for k in order]
    trace = {
        "type": "heatmap",
        "x": shown,
        "y": shown,
        "z": np.round(shares, 4).tolist(),
        "text": [[f"{n:,}" if n else "" for n in row] for row in table.tolist()],
        "colorscale": [[k / (len(STEPS) - 1), step] for k, step in enumerate(STEPS)],
        "zmin": 0,
        "zmax": 1,
        "colorbar": {"tickformat": ".0%", "thickness": 12},
        "texttemplate": "%{text}" if len(shown) <= MAX_WRITTEN else "",
        "hovertemplate": "labelled %{y}<br>called %{x}<br>%{text} items, %{z:.1%}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "predicted"}, "automargin": True, "tickangle": -45},
        "yaxis": {"title": {"text": "labelled"}, "automargin": True, "autorange": "reversed"},
        "height": max(380, 90 + 24 * len(shown)),
    }
    return {"data": [trace], "layout": layout}


def reliability(before: Curve, after: Curve) -> dict[str, Any]:
    """Return how often predictions of a confidence are right, before and after calibration."""
    traces: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "name": "honest", "x": [0, 1], "y": [0, 1], "line": {"dash": "dot"}}
    ]
    for name, found, dash, symbol in (("before", before, "dash", "circle-open"), ("after", after, "solid", "diamond")):
        line = {"dash": dash, "color": COLOURS[len(traces) - 1]}
        hover = f"{name}: sure %{{x:.0%}}, right %{{y:.0%}} of %{{customdata:,}}<extra></extra>"
        points = {"x": found.confidence, "y": found.accuracy, "customdata": found.n_items, "hovertemplate": hover}
        # A point of few items says little.
        marker = {"symbol": symbol, "size": [round(min(14, 4 + n**0.5), 1) for n in found.n_items]}
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "name": name, "line": line, "marker": marker, **points}
        )
    traces[0]["line"]["color"] = "#8a8a8a"
    axes = {"range": [0, 1.02], "tickformat": ".0%"}
    return {
        "data": traces,
        "layout": {
            "xaxis": axes | {"title": {"text": "how sure the model is"}},
            "yaxis": axes | {"title": {"text": "how often it is right"}},
            "height": 340,
        },
    }


def histogram(without: Sequence[int], labelled: Sequence[int]) -> dict[str, Any]:
    """Return how many items have which confidence, those without labels below those with."""
    places = [round((k + 0.5) / N_BINS, 4) for k in range(N_BINS)]
    bars = [
        {
            "type": "bar",
            "name": name,
            "x": places,
            "y": list(counts),
            "width": 0.9 / N_BINS,
            "marker": {"color": COLOURS[place], "pattern": {"shape": pattern}},
            "hovertemplate": "around %{x:.1%}: %{y:,} items<extra></extra>",
        }
        for place, (name, counts, pattern) in enumerate(
            (("items without labels", without, ""), ("labelled items", labelled, "/"))
        )
    ]
    axis = {"title": {"text": "probability of the best path"}, "tickformat": ".0%", "range": [0, 1]}
    return {"data": bars, "layout": {"barmode": "stack", "xaxis": axis, "yaxis": {"title": {"text": "items"}}}}


def bars(values: Mapping[str, float], *, x_title: str, tickformat: str = "") -> dict[str, Any]:
    """Return horizontal bars, the first on top."""
    names = [escaped(name) for name in values]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": list(values.values()),
        "y": names,
        "marker": {"color": COLOURS[0]},
        "hovertemplate": f"%{{y}}: %{{x{':' + tickformat if tickformat else ''}}}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": x_title}, "tickformat": tickformat},
        "yaxis": {"automargin": True, "autorange": "reversed"},
        "height": 110 + 26 * len(names),
    }
    return {"data": [trace], "layout": layout}
