"""Progress: one plain line a stage where nobody watches, one live line on a terminal."""

import io
import time
from types import SimpleNamespace

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


def test_a_terminal_gets_a_bar_that_is_drawn_again_and_then_one_line(monkeypatch):
    stream, now = Terminal(), [1000.0]  # a clock of its own: a shared machine may stop for half a second
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr("pipeline.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    with stage_progress("TrainModel", stream) as progress:
        progress.update(1, 2, loss=3.5)
        now[0] += 0.11
        progress.update(1.5, 2, loss=2.5)
        progress.update(2, 2, loss=1.25)  # within a tenth of a second: not drawn
    drawn = [part.rstrip() for part in stream.getvalue().split("\r") if part.strip()]
    assert drawn[0].split() == ["TrainModel", "########", "1/2", "loss", "3.500", "00:00,", "?", "left"]
    assert drawn[1].split() == ["TrainModel", "############", "1/2", "loss", "2.500", "00:00,", "00:00", "left"]
    assert drawn[2:] == ["TrainModel    2/2  loss 1.250  (0.1 s)"]


def test_a_bar_says_how_long_the_rest_takes_at_the_pace_since_the_first_update(monkeypatch):
    stream = Terminal()
    with stage_progress("TrainModel", stream) as progress:
        progress.update(1, 60)  # after a minute: a compile, say
        progress._bar.start_t -= 30
        time.sleep(0.11)
        progress.update(2.5, 60, loss=1.0)  # 1.5 in 30 s, 57.5 are left
    assert "loss 1.000  00:30, 19:1" in stream.getvalue()


def test_a_stage_that_fails_clears_its_line():
    stream = Terminal()
    with pytest.raises(ValueError, match="no"), stage_progress("TrainModel", stream) as progress:
        progress.update(1, 2)
        raise ValueError("no")
    assert stream.getvalue().endswith("\r")
    assert not stream.getvalue().split("\r")[-2].strip()
