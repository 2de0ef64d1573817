"""Sessions over a real sshd: whole, broken off and gone on with, and refused in a sentence."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import venv

import numpy as np
import pytest

from compress.cli import main
from compress.errors import MeasurementError
from compress.measure.local import LocalTarget
from compress.measure.recipe_targets import KINDS, spelled
from compress.measure.remote.device import RemoteDevice
from compress.measure.remote.shell import LinkDown
from compress.measure.remote.ssh import SshTarget
from compress.measure.session import read_session
from compress.measure.target import BenchmarkConfig, Failure, Target, Timing

X = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
QUICK = BenchmarkConfig({"": X}, "quick")


def times(lines):
    return [line for line in lines if line["kind"] == "time"]


def test_a_whole_session(device, there, one, tmp_path):
    target = device.target(there, name="pi", threads=1)
    assert isinstance(target, Target)
    missing = tmp_path / "missing.onnx"
    raw = tmp_path / "raw.jsonl"
    base, gone, again = target.measure([one, missing, one], QUICK, raw)
    assert gone == Failure(f"{missing}: there is no such file.")
    for timing in (base, again):
        assert isinstance(timing, Timing)
        assert timing.latency.p50_s > 0
        assert timing.memory.model_peak_bytes > 0
    assert base.speedup.verdict == "baseline"
    lines = [json.loads(line) for line in raw.read_text().splitlines()]
    assert lines[0]["target"]["host"] == "device"
    assert len(times(lines)) == 6
    assert read_session(raw).timings == [base, again]
    assert len(there.starts()) == 1


def test_a_link_that_is_cut_in_the_middle_changes_nothing(
    device, there, one, tmp_path, meanwhile, until
):
    def cut():
        device.link.cut()
        lines = len(there.lines())
        until(lambda: len(there.lines()) > lines + 1)  # the device goes on by itself
        device.link.mend()

    connections = device.link.connections
    meanwhile(lambda: len(times(there.lines())) > 0, cut)
    raw = tmp_path / "raw.jsonl"
    timings = device.target(there).measure([one, one], QUICK, raw)
    on_device = there.lines()
    fetched = [json.loads(line) for line in raw.read_text().splitlines()]
    assert fetched[1:] == on_device[1:]
    assert len(times(fetched)) == 6
    assert read_session(raw).timings == timings
    assert len(there.starts()) == 1
    assert device.link.connections >= connections + 2


@pytest.mark.exhaustive
def test_a_repeated_command_picks_the_session_up(device, there, one, meanwhile, until, monkeypatch):
    monkeypatch.setattr("compress.measure.remote.device._LONGEST_PAUSE_S", 0.5)
    target = device.target(there, timeout_s=6)
    meanwhile(lambda: len(there.lines()) > 1, device.link.cut)
    with pytest.raises(LinkDown, match=r"Given up after .* the same command resumes from it"):
        target.measure([one], QUICK)
    until(lambda: there.lines()[-1]["kind"] == "end")
    device.link.mend()
    (timing,) = target.measure([one], QUICK)
    assert isinstance(timing, Timing)
    assert len(there.starts()) == 1


def test_a_driver_that_is_killed_is_started_again_and_goes_on(device, there, one, meanwhile):
    def kill():
        os.kill(there.starts()[-1], signal.SIGKILL)

    meanwhile(lambda: len(times(there.lines())) > 1, kill)
    (timing,) = device.target(there).measure([one], QUICK)
    assert isinstance(timing, Timing)
    assert len(there.starts()) == 2
    assert len(times(there.lines())) == 4


@pytest.mark.exhaustive  # as a session that was never begun
def test_results_that_were_taken_are_measured_anew(device, there, one):
    target = device.target(there)
    outputs = [target.predict(one, {"": X}) for _ in range(2)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert len(there.sessions) == 1
    assert len(there.starts()) == 1  # of the second one: the first one's folder is gone


def test_outputs_are_those_of_this_machine(device, there, one):
    (there_outputs,) = device.target(there, batch=3).predict(one, {"": X})
    (here_outputs,) = LocalTarget(batch=3).predict(one, {"": X})
    np.testing.assert_array_equal(there_outputs, here_outputs)


def test_the_device_says_how_it_wants_to_be_lowered_for(device, there):
    target = device.target(there, batch=2)
    assert target.lowering() == LocalTarget(batch=2).lowering()
    assert target.environment()["device_id"] == LocalTarget().environment()["device_id"]
    assert target == device.target(there, batch=2)


@pytest.mark.exhaustive
def test_files_go_over_once(device, there, large):
    target = device.target(there)
    sent = []
    for rows in (1, 2):
        before = device.link.bytes_up
        target.predict(large, {"": X[:rows]})
        sent.append(device.link.bytes_up - before)
    assert sent[0] > large.stat().st_size > 20 * sent[1]


@pytest.mark.exhaustive  # files that go over once, above, and a cut link are the same
def test_an_upload_that_breaks_off_is_made_good(device, there, large):
    device.link.breaks_after = device.link.bytes_up + large.stat().st_size // 2
    (outputs,) = device.target(there).predict(large, {"": X[:1]})
    assert device.link.breaks_after is None
    assert outputs.shape == (1, 200_000)


@pytest.mark.exhaustive  # nothing else differs
def test_a_device_without_an_sftp_server(device_without_sftp, there, one):
    (outputs,) = device_without_sftp.target(there).predict(one, {"": X})
    assert outputs.shape == (10, 3)


def test_an_open_connection_of_the_users_own_is_used_and_left_open(device, there, one, tmp_path):
    config = device.changed("  Port", f"  ControlPath {device.folder}/own\n  Port")
    own = ["ssh", "-F", str(config), "-o", "BatchMode=yes"]
    subprocess.run([*own, "-M", "-N", "-f", "device"], check=True, stderr=subprocess.DEVNULL)
    try:
        connections = device.link.connections
        device.target(there, config=config).predict(one, {"": X})
        assert device.link.connections == connections
        subprocess.run([*own, "-O", "check", "device"], check=True, stderr=subprocess.DEVNULL)
    finally:
        subprocess.run([*own, "-O", "exit", "device"], check=True, stderr=subprocess.DEVNULL)


# -- refusals ---------------------------------------------------------------------------------


def refused(target, one):
    with pytest.raises(MeasurementError) as caught:
        target.predict(one, {"": X})
    message = str(caught.value)
    assert message.startswith("ssh:device: ")
    assert "\n" not in message
    return message


@pytest.mark.exhaustive
def test_a_held_lock(device, there, one):
    with device.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        message = refused(device.target(there), one)
    assert "another session (process 4711) is timing on this device" in message
    device.target(there).predict(one, {"": X})


def test_a_wrong_host_key(device, there, one, new_key, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text(f"device {new_key(tmp_path / 'other')}")
    config = device.changed(f"{device.folder}/known_hosts", str(known))
    message = refused(device.target(there, config=config), one)
    assert "the host key is not the one that this machine knows" in message
    known.write_text("")
    message = refused(device.target(there, config=config), one)
    assert "its host key is not known to this machine; run `ssh device` once" in message


def test_a_missing_python(device, there, one):
    message = refused(device.target(there, python="/nowhere/python3"), one)
    assert "there is no /nowhere/python3 there; install Python 3.9 or newer" in message


def test_a_python_without_the_libraries(device, there, one, tmp_path):
    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    message = refused(device.target(there, python=str(tmp_path / "bare/bin/python3")), one)
    assert "has no numpy and no onnxruntime; run `" in message
    assert "-m pip install numpy onnxruntime` there" in message


def test_a_key_that_is_not_accepted(device, there, one, new_key, tmp_path):
    new_key(tmp_path / "stranger")
    config = device.changed(f"{device.folder}/user_key", str(tmp_path / "stranger"))
    assert "permission denied: no key" in refused(device.target(there, config=config), one)


def test_a_device_that_is_off(device, there, one):
    device.link.cut()
    try:
        message = refused(device.target(there), one)
    finally:
        device.link.mend()
    assert "it refuses connections; is its ssh server running" in message


def test_a_folder_with_other_things_in_it(device, there, one):
    there.root.mkdir()
    (there.root / "thesis.tex").touch()
    message = refused(device.target(there), one)
    assert "holds files of something else; give `folder` a place of its own" in message


def test_a_folder_that_cannot_be(device, there, one):
    there.root.touch()
    assert f"{there.root}" in refused(device.target(there), one)


def test_a_device_that_is_too_full(device, there, large, monkeypatch):
    hello = RemoteDevice.hello

    def full(self):
        facts = hello(self)
        self._free_bytes = 1 << 20
        return facts

    monkeypatch.setattr(RemoteDevice, "hello", full)
    message = refused(device.target(there), large)
    assert "MiB have to go to" in message
    assert "where 1.0 MiB are free; free some" in message


def test_a_model_that_does_not_load_there(device, there, one, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(one.read_bytes()[:40])
    with pytest.raises(MeasurementError, match=r"broken\.onnx: the file is cut off"):
        device.target(there).predict(broken, {"": X})


def test_more_threads_than_the_device_has(device, there, one):
    message = refused(device.target(there, threads=1_000), one)
    assert "threads is 1000, but a process there may use" in message


# -- the command line -------------------------------------------------------------------------


@pytest.fixture
def arguments(device, there):
    """What every command line needs to reach the device."""
    reach = ["--ssh-config", device.config, "--folder", there, "--python", sys.executable]
    return ["--target", "ssh:device", *map(str, reach)]


@pytest.mark.exhaustive  # tests/measure/remote/test_run.py does, and a whole session above
def test_bench_measures_there(arguments, one, capsys, there):
    assert main(["bench", str(one), "--quick", *arguments]) == 0
    assert "baseline" in capsys.readouterr().out
    assert there.lines()[-1]["kind"] == "end"


def test_bench_says_what_is_wrong(device, arguments, one, capsys):
    device.link.cut()
    try:
        assert main(["bench", str(one), "--quick", *arguments]) == 1
    finally:
        device.link.mend()
    assert capsys.readouterr().err.startswith("compresskit: ssh:device: it refuses connections")


def test_doctor_says_what_the_device_can_do(arguments, capsys):
    assert main(["doctor", *arguments]) == 0
    text = capsys.readouterr().out
    for part in ("Python 3.", "numpy", "onnxruntime", "GiB of disk free in", "cores to use"):
        assert part in text


def test_doctor_says_what_the_device_lacks(arguments, capsys, tmp_path):
    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    python = str(tmp_path / "bare/bin/python3")
    assert main(["doctor", *arguments, "--python", python]) == 1
    assert f"-> {python} -m pip install onnxruntime, there" in capsys.readouterr().out


FORMS = spelled([kind.spelling() for kind in KINDS])


def test_the_forms_of_targets_are_spelled_with_their_places():
    assert FORMS.startswith("local, ssh:HOST")
    assert "adb[:SERIAL]" in FORMS


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("pi", f"--target is {FORMS}; got 'pi'."),
        ("ssh:", f"--target is {FORMS}; got 'ssh:'."),
        ("local:1", f"--target is {FORMS}; got 'local:1'."),
        ("adb:", f"--target is {FORMS}; got 'adb:'."),
        ("ssh:-oProxyCommand=id", r"--target ssh:-oProxyCommand=id: host: "),
        ("adb:-x", r"--target adb:-x: serial: "),
    ],
)
def test_targets_of_no_known_form(target, said, one, capsys):
    assert main(["bench", str(one), f"--target={target}"]) == 2
    assert said in capsys.readouterr().err


def test_options_for_other_devices_are_refused_for_this_one(one, capsys):
    assert main(["bench", str(one), "--folder", "/tmp/x"]) == 2
    said = capsys.readouterr().err
    assert "--folder is for targets of kind ssh and adb" in said
    assert "; got --target local." in said
    assert main(["bench", str(one), "--target", "ssh:pi", "--provider", "cuda"]) == 2
    assert "--provider is for targets of kind local" in capsys.readouterr().err


def test_a_target_is_made_of_its_parameters():
    target = SshTarget(host="me@pi.local", port=2222)
    assert (target.name, target.runtime, target.python) == ("ssh", "onnxruntime", "python3")
    assert SshTarget.model_validate(target.model_dump()) == target
