"""A headless Chromium that a test drives through a pipe, by the DevTools protocol.

Rules:
- it has an empty profile, resolves no name, and looks for no update: what it requests, a page made it request;
- every request and every message of the console is kept, for the test to judge.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-default-apps"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--mute-audio", "--hide-scrollbars"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
TIMEOUT_S = 60.0
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27}
_SHIFT, _CTRL = 8, 2


class Browser:
    """A browser and its one page.

    Attributes:
        requests: addresses that the page asked for, in order.
        said: messages of the console, and violations of the page's policy.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = os.fdopen(reading, "rb"), writing
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.said: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        data = bytearray()
        while not data.endswith(b"\0"):
            byte = self._reading.read(1)
            assert byte, "the browser ended"
            data += byte
        message = json.loads(data[:-1])
        parameters = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.said.append(str([part.get("value") for part in parameters["args"]]))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(parameters["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded":
            self.said.append(parameters["entry"]["text"])
        return message

    def attach(self) -> None:
        """Open the page, and watch it."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{part}.enable")
        self.set_window()

    def set_window(self, width: int = 1200, height: int = 900, *, is_dark: bool = False) -> None:
        """Set the size of the window, and the color scheme that the user prefers."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Open an address, and wait until the page and what it asks for at once are there."""
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression, which may be a promise."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + TIMEOUT_S
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < until, condition
            time.sleep(0.02)

    def press(self, key: str, *, shift: bool = False, ctrl: bool = False) -> None:
        """Press a key, as a person at the keyboard."""
        held = (_SHIFT if shift else 0) | (_CTRL if ctrl else 0)
        common: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": held}
        common["code"] = {" ": "Space"}.get(key, key)
        text = {"Enter": "\r", " ": " "}.get(key)
        more = {"text": text} if text and not ctrl else {}
        self.send("Input.dispatchKeyEvent", type="keyDown" if more else "rawKeyDown", **common, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page, for a person to look at."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty page, for the length of a block."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not installed: make system TIER=ci"
    to_child, writing = os.pipe()
    reading, from_child = os.pipe()
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        command = ["bash", "-c", f'exec "$@" 3<&{to_child} 4>&{from_child}', "browser", program, *_FLAGS]
        child = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": profile, "LC_ALL": "C.UTF-8"},
        )
        os.close(to_child)
        os.close(from_child)
        found = Browser(reading, writing)
        try:
            found.attach()
            yield found
        finally:
            os.close(writing)  # the browser ends with its pipe
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            found._reading.close()
