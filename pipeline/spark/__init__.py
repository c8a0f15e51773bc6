"""Stages on Spark: what executors do is what the processes of one machine do, by the same functions, to the same bytes.

    app.py         the program that spark-submit runs: one stage
    messages.py    what it tells the process that started it
    cluster.py     what a session needs to know of us: the package, the model, one thread a task
    executor.py    what executors do; needs NumPy, SciPy, h5py, pyarrow and pydantic
    waves.py       parts go out and come back, a bounded number at a time
    cleaning.py    stage 1
    features.py    stage 2
    scoring.py     stage 5

Needs the extra `spark`, and Java. Nothing of it is imported where the engine is local.
"""

from pathlib import Path

PROGRAM = Path(__file__).with_name("app.py")
