"""What tasks leave behind: a published directory, the pointer of a date, a plan."""

from __future__ import annotations

from pathlib import Path

import luigi

from pipeline import artifacts, downloads, files, pointers
from pipeline.errors import ArtifactError
from pipeline.refresh import Choice, planned


class DirectoryTarget(luigi.Target):
    """A directory that was published whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Return whether the manifest is there and the sizes of all files are right."""
        return artifacts.exists(self.path)

    def verified(self) -> Path:
        """Return the directory; raises ArtifactError where a file is not as it was published."""
        return artifacts.verify(self.path)

    def __str__(self) -> str:
        return str(self.path)


class PointerTarget(luigi.Target):
    """The pointer of a date, as far as it names this run."""

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self.run = run

    def exists(self) -> bool:
        """Return whether the date's pointer names this run and `latest` some; a damaged one is written anew.

        What it names beside the run must be whole, too: changes and report are made with the run alone.
        """
        try:
            pointer, latest = pointers.read(self.path), pointers.read(self.path.with_name("latest.json"))
        except ArtifactError:
            return False
        if pointer is None or pointer.run != self.run or latest is None:
            return False
        beside = (place for place in (pointer.changes, pointer.report) if place is not None)
        return all(artifacts.stands(self.path.parents[1] / place) for place in beside)

    def __str__(self) -> str:
        return f"{self.path} -> {self.run}"


class UrlTarget(luigi.Target):
    """A file in an object store."""

    def __init__(self, url: str) -> None:
        self.url = url

    def exists(self) -> bool:
        """Return whether there is such a file; raises SettingsError where the store does not say."""
        return downloads.version(self.url) is not None

    def __str__(self) -> str:
        return self.url


class FileTarget(luigi.Target):
    """A file that can be read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Return whether there is such a file and it may be read."""
        return files.readable(self.path)

    def __str__(self) -> str:
        return str(self.path)


class PlanTarget(FileTarget):
    """The plan of a run, as far as it has chosen the model that this run has."""

    def __init__(self, path: Path, choice: Choice) -> None:
        super().__init__(path)
        self.choice = choice

    def exists(self) -> bool:
        """Return whether there is such a plan."""
        try:
            return self.agrees()
        except ArtifactError:
            return False

    def agrees(self) -> bool:
        """Return whether the plan is written; raises ArtifactError where it is damaged or has chosen otherwise."""
        found = planned(self.path)
        if found is not None and (found.model, found.start) != (self.choice.model, self.choice.start):
            raise ArtifactError(
                f"{self.path}: another run planned the same date while something was published, and starts from "
                "another model; run the same command again"
            )
        return found is not None
