"""The figures of the suites, told at the end of the run, and the project that most of them disturb."""

from collections.abc import Callable, Iterator
from functools import partial

import nights
import pytest

# It changes the process that imports it: only the server of jobs may.
collect_ignore = ["warm_engine.py"]


@pytest.fixture
def figure(record_property) -> Callable[[str], None]:
    """Say what was measured."""
    return partial(record_property, "figure")


@pytest.fixture(autouse=True)
def effort(record_property, worker_id) -> Iterator[None]:
    """Say what all tests until now have taken of the processor."""
    yield
    record_property("cpu", [worker_id, nights.cpu_seconds()])


def pytest_terminal_summary(terminalreporter) -> None:
    # Properties come with the reports, from whatever process ran the test.
    reports = [report for found in terminalreporter.stats.values() for report in found]
    told = [
        facts for report in reports if getattr(report, "when", "") == "teardown" for facts in report.user_properties
    ]
    if figures := [text for name, text in told if name == "figure"]:
        terminalreporter.section("reliability")
        for line in figures:
            terminalreporter.line(line)
        used = dict(sorted(tuple(facts) for name, facts in told if name == "cpu"))  # the last of each worker
        terminalreporter.line(f"processor time of all: {sum(used.values()) / 60:.1f} minutes")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> None:
    nights.start_server(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session")
def faults(server) -> None:
    """Skip a test of what needs the C library's calls to be caught."""
    if not nights.can_fault():
        pytest.skip("calls of the C library cannot be caught here: that needs Linux and a C compiler")


@pytest.fixture(scope="session")
def tonight(server, tmp_path_factory) -> nights.Tonight:
    return nights.make_tonight(tmp_path_factory.mktemp("tonight"))
