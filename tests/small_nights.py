"""Published runs of many nights without a job: directories, plans and pointers, as retention finds them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline import artifacts, plans, pointers

PROJECT = Path(__file__).parents[1]


def print_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Nights:
    """A root below which nights are published as the job does it."""

    root: Path

    def publish(self, stage: str, name: str, **facts: object) -> str:
        folder = self.root / stage / print_of(stage + name)
        facts = {"stage": stage, "fingerprint": folder.name, "upstreams": {}, **facts}
        work = self.root / "work" / folder.name
        artifacts.publish(folder, lambda path: (path / "a").write_text(name) and None, work=work, facts=facts)
        return folder.name

    def night(self, date: str, name: str, *, features: str = "same", start: str | None = None) -> pointers.Pointer:
        """Publish a run with a model of its own, made from features that nights may share."""
        clean = self.publish("clean", name)
        below = {"clean": clean, "features": self.publish("features", features, upstreams={"clean": clean})}
        train = self.publish("train", name, upstreams={"features": below["features"]}, start=start)
        model = self.publish("export", name, upstreams={**below, "train": train})
        drift = self.publish("drift", name, upstreams={"clean": clean})
        run = self.publish("score", name, upstreams={"export": model, "scored": clean})
        stages = {**below, "train": train, "export": model, "scored": clean, "score": run}
        plan = {"date": date, "fingerprint": print_of("plan" + name), "stages": stages}
        place = f"plan/{date}-{plan['fingerprint']}.json"
        plans.write_plan(self.root / place, plan, work=self.root / "work")
        assert drift
        pointer = pointers.Pointer(date=date, run=run, folder=f"score/{run}", model=model, plan=place)
        pointers.point(self.root, pointer)
        return pointer

    def there(self, stage: str) -> set[str]:
        return {(path / "a").read_text() for path in (self.root / stage).glob("*")}

    def unlocked(self) -> list[str]:
        """Return what is in work/ beside the locks that every writer takes."""
        return sorted(path.name for path in (self.root / "work").iterdir() if path.suffix != ".lock")

    def dates(self) -> list[str]:
        return [pointer.date for pointer in pointers.of_dates(self.root)]
