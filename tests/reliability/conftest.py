"""The figures of the suites, told at the end of the run, and the project that most of them disturb."""

from collections.abc import Callable

import nights
import pytest

_figures = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what was measured."""
    return request.config.stash.setdefault(_figures, []).append


def pytest_terminal_summary(terminalreporter, config) -> None:
    if figures := config.stash.get(_figures, []):
        terminalreporter.section("reliability")
        for line in figures:
            terminalreporter.line(line)


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
