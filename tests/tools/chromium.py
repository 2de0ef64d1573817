"""A headless Chromium for looking at reports: Debian's package, the standard library, no driver.

Speaks the DevTools protocol over two pipes (``--remote-debugging-pipe``): messages are JSON, each
ended by a zero byte. Knows nothing of reports.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from compress.errors import CompressError, MissingExtra

__all__ = ["Chromium", "Tab", "find_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_S = 60.0
_FIRST_FREE_FD = 10  # the browser wants its pipes as descriptors 3 and 4
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "about:blank",
)


def find_chromium() -> str | None:
    """The path of an installed Chromium; ``None`` if there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser process with a profile of its own, for use in a ``with`` statement.

    Raises:
        MissingExtra: none is installed.
        CompressError: it does not answer, or it refuses a command.
    """

    def __init__(self, path: str | None = None) -> None:
        found = path or find_chromium()
        if found is None:
            raise MissingExtra(
                "Chromium is not installed, and pages can only be looked at in one; "
                "install the package chromium."
            )
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process, self._in, self._out = _spawn(found, self._profile.name)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(CompressError, OSError):
            self.call("Browser.close")
        os.close(self._in)
        os.close(self._out)
        _reap(self._process)
        self._profile.cleanup()

    @contextmanager
    def tab(self, url: str, *, width: int, height: int, dark: bool = False) -> Iterator[Tab]:
        """A page at ``url``, loaded, in a window of that many pixels."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        tab = Tab(self, attached["sessionId"])
        tab.load(url, width=width, height=height, dark=dark)
        try:
            yield tab
        finally:
            self.call("Target.closeTarget", {"targetId": target})

    def call(
        self, method: str, parameters: Mapping[str, Any] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Send one command and return what it answers; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": dict(parameters or {})}
        if session is not None:
            message["sessionId"] = session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") != self._number:
                continue
            if "error" in answer:
                raise CompressError(f"Chromium refused {method}: {answer['error']['message']}.")
            result: dict[str, Any] = answer["result"]
            return result

    def receive(self) -> dict[str, Any]:
        """The next message; events are added to ``events`` too."""
        until = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(0.0, until - time.monotonic()))
            read = os.read(self._out, 1 << 20) if ready else b""
            if not read:
                raise CompressError(
                    "Chromium did not answer; as root or in a container it may need "
                    "more shared memory."
                )
            self._buffer += read
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


class Tab:
    """One page of a browser."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    def load(self, url: str, *, width: int, height: int, dark: bool) -> None:
        """Open ``url`` and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.call("Page.navigate", {"url": url})
        while not self.events("Page.loadEventFired"):
            self._browser.receive()

    def call(self, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a command to this page."""
        return self._browser.call(method, parameters, self._session)

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of this page's events of one kind so far."""
        return [
            event["params"]
            for event in self._browser.events
            if event["method"] == method and event.get("sessionId") == self._session
        ]

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited, as plain data.

        Raises:
            CompressError: it threw.
        """
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", asked)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            said = details.get("exception", {}).get("description", details["text"])
            raise CompressError(f"the page threw: {said}.")
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, as in ``Tab`` or ``ArrowRight``."""
        codes = {"Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        for kind in ("keyDown", "keyUp"):
            stroke = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            self.call("Input.dispatchKeyEvent", stroke)

    def move(self, x: float, y: float) -> None:
        """Move the pointer to a place of the window."""
        self.call("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def picture(self, *, top: float = 0, height: float | None = None) -> bytes:
        """A PNG of the page from ``top`` on, to its end unless ``height`` is given."""
        page = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": top,
            "width": page["width"],
            "height": min(height or page["height"], page["height"] - top),
            "scale": 1,
        }
        asked = {"format": "png", "clip": clip, "captureBeyondViewport": True}
        return base64.b64decode(self.call("Page.captureScreenshot", asked)["data"])


def _spawn(path: str, profile: str) -> tuple[int, int, int]:
    """Start the browser; returns its process, where to write to it, and where to read from it."""
    theirs_in, ours_out = (_moved(fd) for fd in os.pipe())
    ours_in, theirs_out = (_moved(fd) for fd in os.pipe())
    # A sandbox cannot be set up by root, which is who runs in containers.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [path, f"--user-data-dir={profile}", *sandbox, *_FLAGS]
    actions = [
        (os.POSIX_SPAWN_DUP2, theirs_in, 3),
        (os.POSIX_SPAWN_DUP2, theirs_out, 4),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0o600),
    ]
    home = {**os.environ, "HOME": profile}
    process = os.posix_spawn(path, command, home, file_actions=actions, setpgroup=0)
    os.close(theirs_in)
    os.close(theirs_out)
    return process, ours_out, ours_in


def _moved(fd: int) -> int:
    """The same pipe as a descriptor that is in nobody's way and that children do not inherit."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD)
    os.close(fd)
    return moved


def _reap(process: int) -> None:
    """Wait for the browser to end, and end it if it does not."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if os.waitpid(process, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
