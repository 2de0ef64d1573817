"""Signals, streams and what the system refuses: each ends a command in one sentence."""

import errno
import io
import os
import re
import signal
import sys
import threading
import types
from pathlib import Path

import pytest

from compress.cli import main
from compress.cli.signals import Interrupted, signals_raised
from compress.cli.streams import printable_streams
from compress.environment import process_index
from compress.errors import StorageError
from compress.measure.raw_samples import RawLog
from compress.progress import TerminalProgress
from compress.quoting import on_one_line

pytestmark = pytest.mark.fast


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs ``schema`` with another body; the exit code and what was said."""

    def call(body, *arguments):
        fake = types.SimpleNamespace(run=lambda _: body())
        monkeypatch.setitem(sys.modules, "compress.cli.schema", fake)
        code = main(["schema", *arguments])
        return code, capsys.readouterr().err.strip()

    return call


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("made_of_it", [None, ImportError, OSError, SystemError])
def test_a_signal_ends_a_command_in_a_sentence(number, made_of_it, command):
    before = [signal.getsignal(each) for each in SIGNALS]
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def body():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as error:
            if made_of_it:  # as libraries do that are being imported
                raise made_of_it("something else") from error
            raise
        return 0

    try:
        code, said = command(body)
    finally:
        after = [signal.getsignal(each) for each in SIGNALS]
        for each, handler in zip(SIGNALS, before, strict=True):
            signal.signal(each, handler)
    by = "" if number == signal.SIGINT else f" by {number.name}"
    assert (code, said) == (1, f"compresskit: interrupted{by}.")
    assert after[1:] == before[1:]


def test_what_is_being_saved_is_not_disturbed_by_the_same_wish_again(command):
    saved = []

    def body():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            saved.append("whole")

    assert command(body) == (1, "compresskit: interrupted by SIGTERM.")
    assert saved == ["whole"]


def test_a_signal_that_is_to_be_ignored_stays_so(monkeypatch, command):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert command(lambda: os.kill(os.getpid(), signal.SIGHUP) or 0) == (0, "")
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_nothing_is_changed(command):
    found = []
    before = signal.getsignal(signal.SIGTERM)

    def work():
        with signals_raised() as signals:
            found.append((signals.name, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(None, before)]
    assert issubclass(Interrupted, KeyboardInterrupt)


def refusal(number, name=None):
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal(errno.EMFILE, "a.npy"), r"a\.npy: refused by the system \(Too many open files\)"),
        (refusal(errno.EMFILE, "a.npy"), r"; raise the limit on open files \(ulimit -n\)\."),
        (refusal(errno.ENFILE, "a.npy"), r"; close other programs: all open files of this machine"),
        (refusal(errno.ENAMETOOLONG, "nnn"), r"nnn: .*; give a shorter path\."),
        (refusal(errno.ENOSPC), r"an output, such as what is printed: .*; free some space\."),
        (refusal(errno.EDQUOT, "x"), r"x: .*; free some space\."),
        (refusal(errno.EROFS, "x"), r"x: .*; give a folder that can be written\."),
        (refusal(errno.EACCES, "x"), r"x: .*; give one that you may use\."),
        (refusal(errno.EIO, "x"), r"x: .*\(Input/output error\); --debug shows where\."),
        (OSError("strange"), r"\(strange\); --debug shows where\."),
        (ValueError("a\nb\x1b[31m"), r"unexpected ValueError: a\\nb\\x1b\[31m \(this should"),
    ],
)  # fmt: skip
def test_what_no_command_foresaw_is_one_sentence(error, said, command):
    def body():
        raise error

    code, sentence = command(body)
    assert code == (2 if getattr(error, "errno", 0) == errno.ENAMETOOLONG else 1)
    assert re.search(said, sentence), sentence
    assert len(sentence.splitlines()) == 1
    with pytest.raises(type(error)):
        command(body, "--debug")


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch, command):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = "compresskit: the current folder is no longer there; change to another."
    assert command(lambda: 0) == (2, said)


class Refuses(io.TextIOWrapper):
    """A stream whose reader is gone, or whose disk is full."""

    def __init__(self, number):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.number = number

    def flush(self):
        if self.number:
            raise OSError(self.number, os.strerror(self.number))

    def close(self):
        self.number = 0
        super().close()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EPIPE, ""),
        (errno.ENOSPC, "standard output could not be written (No space left on device)."),
    ],
)
def test_output_that_cannot_be_written(number, said, monkeypatch, command):
    out = Refuses(number)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        code, sentence = command(lambda: print("a result") or 0)
    assert (code, sentence.removeprefix("compresskit: ")) == (1, said)
    out.close()


TABLE = "12 × 3 ± 1 … − 5 µs → ≥ 2, 日本 \udcff"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"12 x 3 +- 1 ... - 5 us -> >= 2, \u65e5\u672c \udcff"),
        ("latin-1", "12 × 3 ± 1 ... - 5 µs -> >= 2, \\u65e5\\u672c \\udcff"),
        ("utf-8", "12 × 3 ± 1 … − 5 µs → ≥ 2, 日本 \\udcff"),
    ],
)
def test_every_terminal_shows_something(encoding, shown, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    monkeypatch.setattr(sys, "stdout", stream)
    with printable_streams():
        print(TABLE, end="", flush=True)
    assert stream.buffer.getvalue().decode(encoding) == shown
    assert stream.errors == "strict"


def test_a_file_name_cannot_move_the_cursor():
    assert on_one_line("a\nb\r\x1b[2J\x07 é×\t.", keep="\t") == "a\\nb\\r\\x1b[2J\\x07 é×\t."


@pytest.mark.parametrize("columns", ["1", "2", "0", "-3", "many"])
def test_progress_on_a_narrow_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = TerminalProgress(stream)
    progress({"event": "stage", "index": 1, "of": 2, "label": "train"})
    progress({"event": "teacher", "view": 1, "views": 2})
    progress({"event": "end"})
    assert "[1/2] train" in stream.getvalue()


def test_a_log_of_the_progress_that_cannot_grow_ends_no_run():
    stream = Refuses(errno.ENOSPC)
    progress = TerminalProgress(stream)
    for _ in range(2):
        progress({"event": "stage", "index": 1, "of": 2, "label": "train"})
    stream.number = errno.EPIPE
    with pytest.raises(BrokenPipeError):
        TerminalProgress(stream).note("whoever looked has ended it")
    stream.close()


def test_raw_samples_after_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_text('{"kind": "sess')
    with RawLog(path) as log:
        log.write({"kind": "session"})
    assert path.read_text() == '{"kind": "sess\n{"kind": "session"}\n'
    with RawLog(path):
        pass
    assert path.read_text().endswith("}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
def test_raw_samples_on_a_full_disk():
    said = r"/dev/full: raw samples could not be written \(No space left on device\); free space or"
    with pytest.raises(StorageError, match=said), RawLog(Path("/dev/full")) as log:
        log.write({"kind": "session"})


def test_a_follower_of_a_launch_stays_silent(monkeypatch, command):
    monkeypatch.setenv("RANK", "1")
    assert process_index() == 1

    def body():
        raise KeyboardInterrupt

    assert command(body) == (1, "")
