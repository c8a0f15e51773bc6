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


def test_a_stage_that_fails_clears_its_line():
    stream = Terminal()
    with pytest.raises(ValueError, match="no"), stage_progress("TrainModel", stream) as progress:
        progress.update(1, 2)
        raise ValueError("no")
    assert stream.getvalue().endswith("\r\033[K")
