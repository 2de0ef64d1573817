"""What is done on a device between sessions."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.measure.program import PROGRAM
from compress.measure.remote import agent as remote_agent
from compress.measure.remote.agent import JOBS, KEPT_SESSIONS, MARK

SOURCE = Path(remote_agent.__file__).read_text()


@pytest.fixture
def folder(tmp_path):
    return Path(JOBS["hello"]({"folder": str(tmp_path / "kit")})["folder"])


def digest(content):
    return hashlib.sha256(content).hexdigest()


def want(folder, *contents):
    files = {digest(content): len(content) for content in contents}
    return JOBS["want"]({"folder": str(folder), "token": "t", "files": files})


def arrive(folder, content, under=None):
    (folder / "incoming/t").mkdir(parents=True, exist_ok=True)
    (folder / "incoming/t" / (under or digest(content))).write_bytes(content)


def piped(text):
    command = [sys.executable, "-I", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def ask(job):
    done = piped(f"{SOURCE}\nmain({json.dumps(job)!r})\n")
    return json.loads(done.stdout.rpartition(MARK)[2])


def test_it_is_piped_to_a_python_and_answers_on_a_line_of_its_own(tmp_path):
    facts = ask({"kind": "hello", "folder": str(tmp_path / "it's here")})
    assert facts["folder"] == str(tmp_path / "it's here")
    assert facts["libraries"]["numpy"]


@pytest.mark.parametrize("share", [0.3, 0.9, 0.9999])
def test_a_text_that_is_cut_off_does_nothing(tmp_path, share):
    job = json.dumps({"kind": "hello", "folder": str(tmp_path / "kit")})
    text = f"{SOURCE}\nmain({job!r})\n"
    done = piped(text[: int(share * (len(text) - 2))])
    assert MARK not in done.stdout
    assert not (tmp_path / "kit").exists()


def test_it_reads_what_the_oldest_supported_python_reads():
    compile(SOURCE, "agent", "exec", dont_inherit=True)
    import ast

    ast.parse(SOURCE, feature_version=(3, 8))


def test_an_error_is_an_answer(tmp_path, capsys):
    (tmp_path / "kit").touch()
    remote_agent.main(json.dumps({"kind": "hello", "folder": str(tmp_path / "kit")}))
    answer = json.loads(capsys.readouterr().out.strip().removeprefix(MARK))
    assert str(tmp_path / "kit") in answer["error"]


def test_only_whole_files_are_taken_in(folder):
    assert want(folder, b"model")["missing"] == [digest(b"model")]
    arrive(folder, b"mod", under=digest(b"model"))
    assert want(folder, b"model")["missing"] == [digest(b"model")]
    arrive(folder, b"MODEL", under=digest(b"model"))
    assert want(folder, b"model")["missing"] == [digest(b"model")]
    arrive(folder, b"model")
    assert want(folder, b"model")["missing"] == []
    assert (folder / "files" / digest(b"model")).read_bytes() == b"model"


def session(folder, key, program):
    """Starts a session whose program is ``program``."""
    code = program.encode()
    arrive(folder, code)
    want(folder, code)
    links = {PROGRAM: digest(code), "models/0/m.onnx": digest(code)}
    # In a process of its own, as on a device: it leaves the program behind.
    job = {"kind": "start", "folder": str(folder), "key": key, "links": links}
    return ask({**job, "program": PROGRAM})


LINES = "import sys; open(sys.argv[1] + '/session.jsonl', 'a').write('{\"kind\": \"%s\"}\\n')"


def test_a_session_is_started_once_and_not_again_when_it_is_over(folder):
    text = LINES % "end"
    first, second = session(folder, "k", text), session(folder, "k", text)
    assert (first["started"], second["started"]) == (True, False)
    assert (Path(first["session"]) / "models/0/m.onnx").read_text() == text


def test_a_program_that_gives_up_says_why(folder):
    state = session(folder, "k", "import sys; print('busy', file=sys.stderr); sys.exit(3)")
    assert (state["code"], state["words"]) == (3, "busy\n")


def test_a_running_program_is_left_alone(folder):
    state = session(folder, "k", LINES % "session" + "; import time; time.sleep(30)")
    pid = int((Path(state["session"]) / "starts").read_text())
    try:
        assert state["code"] is None
        assert session(folder, "k", LINES % "session" + "; import time; time.sleep(30)") == {
            **state,
            "started": False,
        }
    finally:
        os.kill(pid, 9)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc to tell by")
def test_another_process_with_the_number_of_the_program_is_not_the_program(folder):
    text = LINES % "session"
    starts = Path(session(folder, "k", text)["session"]) / "starts"
    starts.write_text(f"{os.getpid()}\n")
    assert session(folder, "k", text)["started"]
    assert len(starts.read_text().split()) == 2


def test_what_is_old_is_removed_and_what_is_in_use_is_not(folder, monkeypatch):
    monkeypatch.setattr(remote_agent, "KEPT_BYTES", 10)
    states = [session(folder, f"k{n}", LINES % "end" + f" # {n}") for n in range(6)]
    for age, content in enumerate((b"new", b"newish", b"old")):
        arrive(folder, content)
        want(folder, content)
        stamp = time.time() - 100 * age
        os.utime(folder / "files" / digest(content), (stamp, stamp))
    stale = folder / "incoming/abandoned"
    stale.mkdir()
    os.utime(stale, (0, 0))
    JOBS["settle"]({"folder": str(folder), "session": states[-1]["session"]})
    left = sorted(path.name for path in (folder / "sessions").iterdir())
    assert left == [f"k{n}" for n in range(6 - KEPT_SESSIONS, 6)]
    files = {path.name for path in (folder / "files").iterdir()}
    assert {digest(b"new"), digest(b"newish")} <= files
    assert digest(b"old") not in files
    linked = [digest((Path(s["session"]) / PROGRAM).read_bytes()) for s in states[2:]]
    assert set(linked) <= files
    assert not stale.exists()
