"""Devices on this machine: a real sshd on the loopback, behind a link that can be cut; an adb."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.measure.modes import PLANS
from compress.measure.remote.ssh import SshTarget

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv TMPDIR={folder}
{sftp}
"""

CLIENT = """\
Host device
  HostName 127.0.0.1
  Port {port}
  User {user}
  HostKeyAlias device
  IdentityFile {folder}/user_key
  IdentityAgent none
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""


class Link:
    """A port that leads to another one, until it is cut."""

    def __init__(self, port):
        self._to = port
        self._ends = []
        self._listening = None
        self.port = _free_port()
        self.connections = 0
        self.bytes_up = 0
        self.breaks_after = None  # bytes upwards; then the link is gone for a moment
        self.mend()

    def mend(self):
        """Lets connections through (again)."""
        listening = socket.create_server(("127.0.0.1", self.port))
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def cut(self):
        """Drops what is open and refuses what comes."""
        listening, self._listening = self._listening, None
        ends, self._ends = self._ends, []
        for end in [*ends, *([listening] if listening else [])]:
            with suppress(OSError):  # close() alone would not wake up who waits for it
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self, listening):
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self.connections += 1
                self._ends += [near, far]
                for ends in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source, sink, up):
        with suppress(OSError):
            while data := source.recv(1 << 14):
                if up:
                    self._count(len(data))
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, size):
        self.bytes_up += size
        if self.breaks_after is not None and self.bytes_up > self.breaks_after:
            self.breaks_after = None
            self.cut()
            threading.Timer(0.3, self.mend).start()


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@dataclass(frozen=True)
class Device:
    """An sshd, the link to it, and the files of the client that may log in."""

    folder: Path
    link: Link

    @property
    def config(self):
        return self.folder / "config"

    @property
    def lock(self):
        return self.folder / "compresskit-device.lock"

    def target(self, there, **settings):
        """The device as a target that keeps its files in ``there``."""
        usual = {"host": "device", "config": self.config, "python": sys.executable}
        return SshTarget(**{**usual, "folder": str(there), **settings})

    def changed(self, old, new):
        """Another client configuration, in a file of its own."""
        text = self.config.read_text()
        assert old in text
        path = self.folder / f"config-{len(list(self.folder.glob('config*')))}"
        path.write_text(text.replace(old, new))
        return path


def make_key(path):
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text()


def _start_sshd(folder, sftp):
    port = _free_port()
    (folder / "sshd_config").write_text(SERVER.format(port=port, folder=folder, sftp=sftp))
    if os.geteuid() == 0:  # where it drops its rights; distributions make it at boot
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as end:
            if end.recv(4) == b"SSH-":
                return process, port
        time.sleep(0.05)
    raise AssertionError(f"sshd did not start: {(folder / 'sshd.log').read_text()}")


@contextmanager
def _serving(folder, sftp):
    host_key = make_key(folder / "host_key")
    (folder / "authorized_keys").write_text(make_key(folder / "user_key"))
    (folder / "known_hosts").write_text(f"device {host_key}")
    process, port = _start_sshd(folder, sftp)
    link = Link(port)
    text = CLIENT.format(port=link.port, folder=folder, user=getpass.getuser())
    (folder / "config").write_text(text)
    try:
        yield Device(folder, link)
    finally:
        link.cut()
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    with _serving(tmp_path_factory.mktemp("sshd"), "Subsystem sftp internal-sftp") as made:
        yield made


@pytest.fixture(scope="module")
def device_without_sftp(tmp_path_factory):
    with _serving(tmp_path_factory.mktemp("bare"), "") as made:
        yield made


@pytest.fixture
def new_key():
    """Makes a key pair at a path; the public half."""
    return make_key


class There:
    """The folder on the device, seen from the device."""

    def __init__(self, root):
        self.root = root

    def __str__(self):
        return str(self.root)

    @property
    def sessions(self):
        return [path for path in (self.root / "sessions").glob("*") if path.is_dir()]

    def lines(self):
        """Those of all sessions so far."""
        texts = [path.read_text() for path in self.root.glob("sessions/*/session.jsonl")]
        return [json.loads(line) for text in texts for line in text.splitlines(keepends=True)
                if line.endswith("\n")]  # fmt: skip

    def starts(self):
        """The drivers that were started, by process number."""
        texts = [path.read_text() for path in self.root.glob("sessions/*/starts")]
        return [int(word) for text in texts for word in text.split()]


@pytest.fixture
def there(tmp_path):
    return There(tmp_path / "there")


@pytest.fixture
def meanwhile():
    """Does something in the background once a condition holds; its failure is the test's."""
    threads = []

    def schedule(condition, action):
        failures = []

        def work():
            try:
                wait_for(condition)
                action()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        threads.append((thread, failures))

    yield schedule
    for thread, failures in threads:
        thread.join(40)
        assert not thread.is_alive()
        assert not failures


def wait_for(condition, limit_s=30):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit_s, "it never came to that"
        time.sleep(0.02)


@pytest.fixture
def until():
    return wait_for


ADB = '''\
#!{python}
"""An adb whose only device is a folder of this machine, and which talks at every login."""
import shutil, subprocess, sys

arguments = sys.argv[1:]
if arguments[:1] == ["-s"]:
    if arguments[1] != "emulator-5554":
        sys.exit(f"adb: device '{{arguments[1]}}' not found")
    arguments = arguments[2:]
refusal = {refusal!r}
if refusal and arguments[0] == refusal[0]:
    sys.exit(refusal[1])
if arguments[0] == "shell":
    print("Welcome to this phone!", flush=True)
    sys.exit(subprocess.run(["sh", "-c", arguments[1]]).returncode)
if arguments[0] in ("push", "pull"):
    shutil.copyfile(arguments[1], arguments[2])
    print(f"{{arguments[1]}}: 1 file {{arguments[0]}}ed.")
'''


@pytest.fixture
def adb(tmp_path, program):
    """Puts an ``adb`` on the path; with ``("push", words)`` one that refuses to push."""

    def install(*refusal):
        program("adb", ADB.format(python=sys.executable, refusal=refusal))

    install()
    return install


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def install(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return install


def linear(path, outputs):
    """x (n, 4) @ w -> y (n, outputs)."""
    w = np.arange(4 * outputs, dtype=np.float32).reshape(4, outputs) / 4
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(w, "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def one(tmp_path_factory):
    """A model of three outputs."""
    return linear(tmp_path_factory.mktemp("models") / "three.onnx", 3)


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A model of some 3 MB."""
    return linear(tmp_path_factory.mktemp("models") / "large.onnx", 200_000)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Real sessions of two short rounds."""
    timing = {"window_s": 0.01, "warmup_cap_s": 0.05, "sample_s": 0.05, "least": 5, "cap_s": 0.5}
    plan = replace(PLANS["quick"], min_rounds=2, max_rounds=2, timing=timing)
    monkeypatch.setattr("compress.measure.session.PLANS", {"quick": plan})
