"""luigi.cfg as text, from the settings themselves: `python -m tasks.settings_file > luigi.cfg`."""

from __future__ import annotations

import sys

from pipeline.config import Settings
from pipeline.config_catalog import SAMPLE
from tasks.config import LUIGI_SETTINGS, as_text

HEAD = """\
# Every setting, what it means, and its default. Another file: LUIGI_CONFIG_PATH=/path/to/my.cfg, read after
# this one, so it needs only what differs. One value: luigi --module tasks ScoreCatalog --training-epochs 5
# A list is separated by commas. A % is written %%. After a change of pipeline/config.py write this file anew:
# python -m tasks.settings_file > luigi.cfg
"""
LUIGI_HEAD = "# From here on Luigi's own settings: https://luigi.readthedocs.io/en/stable/configuration.html\n"


def render() -> str:
    """Return luigi.cfg: every setting with its meaning and its default."""
    lines = [HEAD]
    for section, model in Settings():
        lines += [f"# {type(model).__doc__}", f"[{section}]"]
        for name, info in type(model).model_fields.items():
            lines += [f"# {info.description}", f"{name} = {shown(info.default)}".rstrip()]
        lines.append("")
    lines.append(LUIGI_HEAD)
    for section, values in LUIGI_SETTINGS.items():
        lines.append(f"[{section}]")
        for name, (value, meaning) in values.items():
            lines += [f"# {meaning}", f"{name} = {value}"]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def shown(default: object) -> str:
    """Return a default as luigi.cfg shows it; the embedded catalog lies relative to the project.

    >>> shown(str(SAMPLE)), shown("50%")
    ('pipeline/sample/movies.csv', '50%%')
    """
    if default == str(SAMPLE):
        default = SAMPLE.relative_to(SAMPLE.parents[2]).as_posix()
    return as_text(default).replace("%", "%%")


if __name__ == "__main__":
    sys.stdout.write(render())
