import errno
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from compress.progress import TerminalProgress

pytestmark = pytest.mark.fast

EPOCH = {
    "event": "epoch",
    "epoch": 2,
    "epochs": 9,
    "loss": 0.25,
    "losses": {"label": 0.25},
    "validation_loss": 0.5,
    "samples_per_s": 1234.4,
    "left_s": 75.2,
}
STEP = {**EPOCH, "event": "step", "step": 3, "steps": 40}


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


class Terminal(io.StringIO):
    def isatty(self):
        return True


STAGE = {"event": "stage", "index": 1, "label": "train", "of": 3}


def shown(stream, *events):
    with TerminalProgress(stream) as progress:
        for event in (STAGE, *events):
            progress(event)
    return stream.getvalue()


def screen(printed):
    """What a terminal shows once it got ``printed``, and whether it shows its cursor."""
    lines, row, column, cursor = [""], 0, 0, True
    for code, text in re.findall(r"(\x1b\[[?\d;]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", printed):
        if code == "\r":
            column = 0
        elif code == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif code.endswith("A"):
            row -= int(code[2:-1])
        elif code == "\x1b[2K":
            lines[row] = ""
        elif code.startswith("\x1b[?25"):
            cursor = code.endswith("h")
        elif text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
        else:
            assert code.endswith("m"), code
    return [line.rstrip() for line in lines], cursor


def test_an_epoch_shows_its_pace_and_the_time_left():
    said = "epoch 2/9, loss 0.2500, validation 0.5000, 1234 samples/s"
    line = shown(io.StringIO(), EPOCH).splitlines()[1]
    assert line == f"  0:00  [1/3] train: {said}, 1:15 left"
    text = shown(Terminal(), EPOCH)
    assert "[1/3] train: " in text
    assert f" 1:15 left, {said}" in text  # a narrow terminal cuts the end


@pytest.mark.parametrize(
    ("left_s", "words"), [(0.4, "samples/s"), (59.6, "1:00 left"), (36000.0, "10:00:00 left")]
)
def test_times_are_minutes_until_they_are_hours(left_s, words):
    assert shown(io.StringIO(), {**EPOCH, "left_s": left_s}).rstrip().endswith(words)


def test_an_earlier_row_is_measured_beside_a_stage_and_not_instead_of_it():
    text = shown(Terminal(), {"event": "measure", "index": 0, "label": "input"})
    assert "[1/3] train: measuring row 0 (input) beside it" in text


def test_steps_move_a_terminal_and_fill_no_file():
    assert "step" not in shown(io.StringIO(), STEP)
    assert "epoch 2/9, step 3/40, loss 0.2500" in shown(Terminal(), STEP)


def test_what_is_gone_on_with_and_what_is_wrong_has_a_line():
    text = shown(
        io.StringIO(),
        {"event": "resumed", "epoch": 4, "seconds": 3.0, "history": []},
        {"event": "warning", "text": "the checkpoint is damaged."},
    )
    assert "[1/3] train: resumed after epoch 4\n" in text
    assert "[1/3] train: the checkpoint is damaged.\n" in text


def test_lines_that_move_are_gone_at_the_end():
    text = shown(Terminal(), STEP, {"event": "measure", "index": 1, "label": "train"}, STEP)
    lines, cursor = screen(text)
    assert lines == ["  0:00  [1/3] train", "  0:00  [1/3] train: measuring", ""]
    assert cursor


@pytest.mark.parametrize(("step", "cells"), [(1, 0), (20, 10), (40, 20)])
def test_a_bar_shows_how_much_is_done_and_no_color_if_none_is_wanted(step, cells, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(Terminal(), {**STEP, "epoch": 1, "epochs": 1, "step": step})
    drawn = next(part for part in text.split("\r") if "step" in part)
    assert drawn.count("━") == cells
    assert not re.search(r"\x1b\[[\d;]*m", text)


def test_steps_that_come_too_fast_are_not_drawn():
    text = shown(Terminal(), *({**STEP, "step": step} for step in range(1, 30)))
    assert "step 1/40" in text
    assert "step 2/40" not in text


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "reading", "what": "the training data"}, "reading the training data"),
        ({"event": "rehearsal"}, "trying all stages on a few samples"),
    ],
)
def test_what_takes_its_time_has_no_bar_and_stands_in_no_file(event, words):
    assert f"[1/3] train: {words}" in shown(Terminal(), event)
    assert "━" not in shown(Terminal(), event)
    assert words not in shown(io.StringIO(), event)


def test_nothing_is_drawn_while_a_row_is_measured():
    stream = Terminal()
    with TerminalProgress(stream) as progress:
        progress(STAGE)
        progress(STEP)
        threads = {thread.name for thread in threading.enumerate()}
        progress({"event": "measure", "index": 1, "label": "train"})
        before = stream.getvalue()
        time.sleep(0.3)
        assert stream.getvalue() == before
        assert {thread.name for thread in threading.enumerate()} == threads


LABEL = "[red]a[/] [link=https://a.b]b[/link] :smile: \x1b[2Jc\nd"


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_name_is_shown_as_it_is_and_moves_no_cursor(stream):
    stage = {**STAGE, "label": LABEL}
    warning = {"event": "warning", "text": f"{LABEL} is odd."}
    text = shown(stream(), stage, STEP, warning)
    assert "[red]a[/] [link=https://a.b]b[/link] :smile:  [2Jc d: " in text
    assert "[red]a[/] [link=https://a.b]b[/link] :smile:  [2Jc d is odd.\n" in text
    assert "\x1b[2J" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_gets_what_its_encoding_knows(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    stream.isatty = lambda: True
    with TerminalProgress(stream) as progress:
        progress(STAGE)
        progress({**STEP, "epoch": 9})
    text = stream.buffer.getvalue().decode(encoding)
    assert "step 3/40" in text
    assert ("━" in text) == (encoding == "utf-8")
    assert text.isascii() == (encoding != "utf-8")


def test_a_terminal_without_a_cursor_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert shown(Terminal(), STEP, EPOCH) == shown(io.StringIO(), STEP, EPOCH)


def test_a_terminal_that_is_gone_ends_no_run():
    class Gone(Terminal):
        is_gone = False

        def write(self, text):
            if self.is_gone:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    stream = Gone()
    with TerminalProgress(stream) as progress:
        progress(STAGE)
        progress(STEP)
        stream.is_gone = True
        for event in (EPOCH, STEP, {"event": "warning", "text": "said to nobody."}, EPOCH):
            progress(event)


IN_A_TERMINAL = """
import sys
from compress.progress import TerminalProgress
with TerminalProgress() as progress:
    progress({"event": "stage", "index": 1, "label": "train", "of": 3})
    for step in range(1, 6):
        progress({"event": "step", "epoch": 1, "epochs": 1, "step": step, "steps": 5, "loss": 0.25,
                  "samples_per_s": 1234.4, "left_s": 75.2})
        if step == 3:
            print("a [red]print[/]", "of one's own")
            print("a warning", file=sys.stderr)
    print("begun", end="", flush=True)
    if "interrupt" in sys.argv:
        raise KeyboardInterrupt
print("result")
"""


def in_a_terminal(columns, *arguments, stdout=None):
    """What a program prints to a terminal of ``columns``, its standard output if it goes there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-c", IN_A_TERMINAL, *arguments]
    streams = {"stdin": theirs, "stdout": theirs if stdout is None else stdout, "stderr": theirs}
    with subprocess.Popen(command, env=environment, **streams):
        os.close(theirs)
        printed = b""
        while part := read(ours):
            printed += part
    os.close(ours)
    return printed.decode()


def read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # the program has ended
        return b""


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_in_a_terminal_a_bar_stands_below_what_is_printed(columns):
    text = in_a_terminal(columns)
    drawn = [part for part in re.split(r"[\r\n]", text) if "1:15 left, epoch 1/1" in part]
    bare = [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", each) for each in drawn]
    assert bare
    assert {line.count("━") + line.count("╸") + line.count("╺") for line in bare} == {
        min(20, columns // 8)
    }
    assert max(map(len, bare)) <= columns
    assert ("samples/s" in bare[0]) == (columns >= 100)
    lines, cursor = screen(text)
    assert [line[-19:] for line in lines] == [
        "  0:00  [1/3] train",
        "a [red]print[/] of one's own"[-19:],
        "a warning",
        "begun",
        "result",
        "",
    ]
    assert cursor


def test_an_interrupted_command_leaves_a_clean_terminal():
    lines, cursor = screen(in_a_terminal(100, "interrupt"))
    assert lines[:5] == [
        "  0:00  [1/3] train",
        "a [red]print[/] of one's own",
        "a warning",
        "begun",
        "Traceback (most recent call last):",
    ]
    assert lines[-2] == "KeyboardInterrupt"
    assert cursor


def test_standard_output_in_a_pipe_stays_there():
    reader, writer = os.pipe()
    text = in_a_terminal(100, stdout=writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"a [red]print[/] of one's own\nbegunresult\n"
    assert "print" not in text


def test_nothing_escapes_into_a_pipe():
    done = subprocess.run([sys.executable, "-c", IN_A_TERMINAL], capture_output=True, check=True)
    assert done.stdout == b"a [red]print[/] of one's own\nbegunresult\n"
    assert done.stderr == b"  0:00  [1/3] train\na warning\n"
