"""A catalog with names that try to be code, and two nights of the job on it: what the tests of the report share."""

import csv
from pathlib import Path

from small_job import DATE, SETTINGS, Project

NEXT_DATE = "2026-11-24"
SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(2)>"
FORMULA = "=HYPERLINK(1)"
BOLD = "<b>bold</b>"
THEMES = {BOLD: ("</script><i>", "ghosts"), "drama & more": ("family", "war"), "comedy": ("satire", '"quoted"')}
REPORTED = SETTINGS.replace("enabled = false", "enabled = true").replace("epochs = 1\n", "epochs = 6\n")


def write_hostile(path: Path, *, n: int = 120, seen: str = "seen") -> None:
    """Write n items of six themes; every seventh is labelled as another one, every eleventh not at all."""
    ladder = [(genre, theme) for genre, themes in THEMES.items() for theme in themes]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title", "tags", "genre", "theme", "split"])
        for number in range(n):
            own = number % 6
            genre, theme = ladder[(own + 1) % 6] if number % 7 == 0 else ladder[own]
            tags = [f"tag {own}", f"sign of {own}", IMAGE if own == 0 else seen, FORMULA]
            split = ("train", "train", "train", "validation", "test")[number % 5]
            title = SCRIPT if number % 6 == 0 else FORMULA if number % 6 == 1 else f"film {number}"
            labels = ["", ""] if number % 11 == 0 else [genre, theme]
            writer.writerow([number, title, ";".join(tags), *labels, split])
        writer.writerow(["", "no id", "tag 1", "", "", "train"])  # a rejected row


def run_two_nights(folder: Path) -> Project:
    """Return a project whose job has run on two nights, the second on a changed catalog."""
    project = Project(folder)
    project.folder.mkdir(exist_ok=True)
    (project.folder / "luigi.cfg").write_text(REPORTED)
    write_hostile(project.folder / "items.csv")
    project.score(date=DATE)
    write_hostile(project.folder / "items.csv", n=126, seen="not met before")
    project.score(date=NEXT_DATE)
    return project
