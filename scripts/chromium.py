"""Drives a headless Chromium by the DevTools protocol over its pipe: no driver, no socket, no package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

WAIT_S = 60
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# The protocol wants descriptors 3 and 4; whatever had these numbers before must not be in the way.
_LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The command of an installed Chromium or Chrome; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One browser with one page; a context manager.

    Attributes:
        requests: Address of everything that the page asked for, itself included.
        complaints: What the page wrote to its console as a warning or an error, violations of its policy included.
    """

    def __init__(self, width: int = 1280, height: int = 900, scale: float = 1, dark: bool = False) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = find_chromium()
        assert command, "no Chromium is installed"
        read_theirs, self._write = os.pipe()
        self._read, write_theirs = os.pipe()
        # --no-sandbox, because containers run as root.
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        flags += ["--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(read_theirs), str(write_theirs), command, *flags, "about:blank"],
            pass_fds=(read_theirs, write_theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self._buffer, self._number, self._session = b"", 0, ""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height, scale)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(WAIT_S)
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def resize(self, width: int, height: int, scale: float = 1, is_phone: bool = False) -> None:
        """Give the page a size in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def open(self, page: Path) -> None:
        """Load a page and wait until it says that it is ready."""
        self.send("Page.navigate", url=page.absolute().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true.

        Raises:
            TimeoutError: It is not after a minute.
        """
        promise = f"""new Promise((resolve) => {{
            const end = Date.now() + {WAIT_S} * 1000;
            const look = () => ({condition}) ? resolve(true) : Date.now() > end ? resolve(false) : setTimeout(look, 20);
            look();
        }})"""
        for _ in range(5):  # a navigation takes the context of the promise with it
            try:
                if self.value(promise):
                    return
                break
            except RuntimeError as error:
                if "context" not in str(error) and "navigated" not in str(error):
                    raise
        raise TimeoutError(condition)

    def value(self, expression: str) -> Any:
        """The value of an expression on the page; promises are waited for."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"]))
        return done["result"].get("value")

    def press(self, key: str, code: int = 0) -> None:
        """Press and release a key; ``code`` is its virtual key code, which arrows need."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)
            text = {}

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send ``mousePressed``, ``mouseMoved``, ``mouseReleased`` or ``mouseWheel``."""
        button = {} if kind == "mouseWheel" else {"button": "left", "clickCount": 1}
        held = {"buttons": 1} if more.pop("is_held", kind == "mousePressed") else {"buttons": 0}
        if kind == "mouseMoved" and not held["buttons"]:
            button = {"button": "none"}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button, **held, **more)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at one place, move in steps, release at another."""
        self.mouse("mousePressed", *start)
        for part in (0.25, 0.5, 0.75, 1):
            place = [a + (b - a) * part for a, b in zip(start, end, strict=True)]
            self.mouse("mouseMoved", *place, is_held=True)
        self.mouse("mouseReleased", *end)

    def picture(self, file: Path) -> None:
        """Save what is seen as PNG."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer; events on the way are kept.

        Raises:
            RuntimeError: The browser refuses, or is gone.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._keep(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._read, 1 << 20)
            if not more:
                raise RuntimeError("the browser ended")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _keep(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(given["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(given["args"]))
            case "Log.entryAdded" if given["entry"]["level"] in ("error", "warning"):
                self.complaints.append(given["entry"]["text"])
