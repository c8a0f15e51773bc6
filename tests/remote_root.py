"""A root in an object store without a job: what test modules publish there. The fixtures are in tests/conftest.py."""

from pipeline import artifacts, mirror, pointers
from pipeline.digests import fingerprint, sealed
from pipeline.pointers import Pointer
from pipeline.remote import remote_of

URL = "memory://bucket/root"
RUN, MODEL = fingerprint({"run": 1}), fingerprint({"model": 1})


def publish(root, stage="score", name=RUN, text="scores", upstreams=None):
    def write(folder):
        (folder / "scores.parquet").mkdir()
        (folder / "scores.parquet" / "part-0.parquet").write_text(text)
        (folder / "summary.json").write_text("{}")

    facts = {"stage": stage, "fingerprint": name, "upstreams": upstreams or {}}
    artifacts.publish(root / stage / name, write, work=root / "work" / name, facts=facts)
    return root / stage / name


def publish_run(root, number, date):
    """Publish a model and a run of a date with its plan, and point to it."""
    run, model = fingerprint({"run": number}), fingerprint({"model": number})
    plan = f"plan/{date}-{fingerprint({'plan': number})}.json"
    stages = {"score": run, "export": model}
    content = {"date": date, "fingerprint": fingerprint({"plan": number}), "stages": stages}
    mirror.keep_first(remote_of(root), root / plan, sealed(content))
    publish(root, "export", model)
    publish(root, "score", run, upstreams={"export": model})
    pointers.point(root, Pointer(date=date, run=run, folder=f"score/{run}", model=model, plan=plan))
    return run


def objects(memory):
    return sorted(path.removeprefix("/bucket/root/") for path in memory.find("/bucket/root"))
