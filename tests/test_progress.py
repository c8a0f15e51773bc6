"""Progress: one plain line a stage where nobody watches, one live line on a terminal."""

import io

import pytest

from pipeline.progress import stage_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_plain_stream_gets_one_line_a_stage():
    stream = io.StringIO()
    with stage_progress("TrainModel", stream) as progress:
        progress.update(1, 2, loss=3.5)
        progress.update(2, 2, loss=1.25, items_per_second=12_345.6)
    assert stream.getvalue() == "TrainModel    2/2  loss 1.250  items per second 12,346  (0.0 s)\n"


def test_a_note_stands_on_a_line_of_its_own():
    stream = io.StringIO()
    with stage_progress("TrainModel", stream) as progress:
        progress.note("compiling")
    assert stream.getvalue() == "TrainModel    compiling\nTrainModel    done  (0.0 s)\n"


def test_a_terminal_gets_a_line_that_is_drawn_again():
    stream = Terminal()
    with stage_progress("TrainModel", stream) as progress:
        progress.update(1, 2)
        progress.update(2, 2)  # within a tenth of a second: not drawn
    drawn = stream.getvalue().split("\r\033[K")
    assert drawn == ["", "TrainModel    1/2  0 s", "TrainModel    2/2  (0.0 s)\n"]


def test_a_live_line_says_how_long_the_rest_takes(monkeypatch):
    now = iter([0.0, 10.0, 10.0, 40.0, 40.0, 41.0])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(now))
    stream = Terminal()
    with stage_progress("TrainModel", stream) as progress:
        progress.update(1, 60)  # after 10 s: a compile, say
        progress.update(2.5, 60, loss=1.0)  # 1.5 in 30 s, 57.5 are left
    assert stream.getvalue().split("\r\033[K")[1:3] == [
        "TrainModel    1/60  10 s",
        "TrainModel    2/60  loss 1.000  40 s  19 min left",
    ]


def test_a_stage_that_fails_clears_its_line():
    stream = Terminal()
    with pytest.raises(ValueError, match="no"), stage_progress("TrainModel", stream) as progress:
        progress.update(1, 2)
        raise ValueError("no")
    assert stream.getvalue().endswith("\r\033[K")
