"""The page: the template with all that it needs, style, script and Plotly among it, in one file."""

from __future__ import annotations

import base64
import json
from importlib.resources import files

from pipeline.report.contents import Contents
from pipeline.report.review import review
from pipeline.report.tables import written


def render(contents: Contents) -> str:
    """Return the page; whatever comes from the data is escaped by the template engine."""
    import jinja2
    from plotly.offline import get_plotlyjs

    here = files("pipeline.report")
    engine = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    engine.filters |= {"written": written, "as_json": as_json}
    template = engine.from_string((here / "template.html").read_text("utf-8"))
    return template.render(
        its=contents,
        style=(here / "style.css").read_text("utf-8"),
        script=(here / "script.js").read_text("utf-8"),
        plotly=get_plotlyjs(),
        # Within the page: a link to the file beside it would be lost with the page's own place.
        review=base64.b64encode(review(contents.suspects)).decode("ascii"),
    )


def as_json(content: object) -> str:
    r"""Return JSON that may stand in a script element: nothing in it ends the element.

    >>> as_json({"title": "</script>"})
    '{"title":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
