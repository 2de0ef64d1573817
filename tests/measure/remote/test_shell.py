"""What ssh, scp and adb say when they fail, in one sentence each."""

import pytest

from compress.errors import MeasurementError
from compress.measure.remote.adb import AdbShell
from compress.measure.remote.shell import LinkDown, home_path
from compress.measure.remote.ssh import SshShell

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Host key verification failed.
"""

FAILING = """\
#!/bin/sh
case "$*" in *"-O check"*) exit 255;; esac
cat >&2 <<'END'
{words}
END
exit {code}
"""


@pytest.mark.parametrize(
    ("words", "said", "again"),
    [
        (CHANGED, r"ssh:me@pi: the host key is not the one .* `ssh-keygen -R pi`", False),
        ("Host key verification failed.", r"not known to this machine; run `ssh me@pi`", False),
        ("me@pi: Permission denied (publickey).", r"no key .* accepted there; run", False),
        ("/x: line 3: Bad configuration option: hst", r"configuration \(/x: line 3: Bad", False),
        ("scp: write remote: No space left on device", r"no space is left there", False),
        ("ssh: Could not resolve hostname pi: Name unknown", r"no host of that name", True),
        ("ssh: connect to host pi port 22: Connection refused", r"refuses connections", True),
        ("ssh: connect to host pi port 22: No route to host", r"does not answer \(ssh", True),
        ("client_loop: send disconnect: Broken pipe", r"the link broke \(client_loop", True),
        ("something new", r"the link broke \(something new\)", True),
        ("", r"the link broke \(it gave no reason\)", True),
    ],
)  # fmt: skip
def test_ssh_failures(program, words, said, again):
    program("ssh", FAILING.format(words=words, code=255))
    with SshShell("me@pi") as shell, pytest.raises(MeasurementError, match=said) as caught:
        shell.run("true")
    assert isinstance(caught.value, LinkDown) == again
    assert str(caught.value).count("\n") == 0


def test_a_copy_that_fails_for_a_reason_of_its_own_is_not_tried_again(program, tmp_path):
    program("ssh", FAILING.format(words="", code=255))
    program("scp", FAILING.format(words='scp: dest open "/x": Permission denied', code=1))
    with SshShell("pi") as shell, pytest.raises(MeasurementError, match=r"status 1: .*denied") as e:
        shell.get("/x", tmp_path / "x", 1)
    assert not isinstance(e.value, LinkDown)


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=touch /tmp/x", "", "a b", "$(id)", "pi;id", "a\nb", "@pi", "pi/x"]
)
def test_hosts_that_are_no_names_are_refused(host):
    with pytest.raises(MeasurementError, match="is no name of a host; give HOST or USER@HOST"):
        SshShell(host)


def test_nothing_of_this_machine_is_handed_on_and_nothing_is_asked(program, tmp_path):
    log = tmp_path / "arguments"
    program("ssh", f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\n')
    with SshShell("pi", port=2222) as shell:
        shell.run("true")
    words = log.read_text().split("\n")
    for option in ("BatchMode=yes", "ForwardAgent=no", "ClearAllForwardings=yes", "Port=2222"):
        assert option in words
    assert words[words.index("RemoteCommand=none") + 1 :][:3] == ["--", "pi", "true"]


def test_without_ssh_or_adb_there_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasurementError, match="no `ssh` on this machine; install OpenSSH"):
        SshShell("pi").__enter__()
    with pytest.raises(MeasurementError, match=r"no `adb` on this machine; .*Android"):
        AdbShell().run("true")


def test_silence_is_a_link_that_is_down(program):
    program("adb", "#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(LinkDown, match=r"adb: no answer within 0\.2 s"):
        AdbShell().run("true", timeout_s=0.2)


@pytest.mark.parametrize(
    ("words", "said", "again"),
    [
        ("error: device unauthorized.", r"does not trust this machine; unlock it", False),
        ("error: more than one device/emulator", r"name one, as in `adb:SERIAL`", False),
        ("adb: no devices/emulators found", r"no such device is attached; plug it in", True),
        ("error: device 'x' not found", r"no such device is attached", True),
        ("error: device offline", r"the link is down", True),
        ("error: closed", r"the link is down", True),
        ("* daemon started\nadb: device offline", r"the link is down", True),
        ("error: protocol of tomorrow", r"status 1: error: protocol of tomorrow", False),
    ],
)
def test_adb_failures(program, words, said, again):
    program("adb", FAILING.format(words=words, code=1))
    with pytest.raises(MeasurementError, match=f"^adb: .*{said}") as caught:
        AdbShell().run("true")
    assert isinstance(caught.value, LinkDown) == again


def test_a_command_that_fails_on_the_phone_is_no_failure_of_adb(adb):
    done = AdbShell("emulator-5554").run("echo out; echo words >&2; exit 3")
    assert (done.code, done.out.splitlines()[-1], done.stderr) == (3, "out", "words\n")


@pytest.mark.parametrize("serial", ["-x", "a b", "", "$(id)"])
def test_serials_that_are_none_are_refused(serial):
    with pytest.raises(MeasurementError, match="is no serial number; `adb devices`"):
        AdbShell(serial)


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("python3", "python3"),
        ("~/my env/python", "~/'my env/python'"),
        ("~/$(id)", "~/'$(id)'"),
        ("a;b", "'a;b'"),
    ],
)
def test_paths_are_quoted_but_for_the_home_folder(path, quoted):
    assert home_path(path) == quoted
