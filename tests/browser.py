"""Chromium for tests of the page, driven through chromedriver's JSON over HTTP on this machine."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.patience import patience, wait_until

MISSING = "needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015"}


def available() -> bool:
    """Whether chromium and chromedriver are installed."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


class Browser:
    """One window; made by `browser`."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, page: Path) -> None:
        """Opens a file."""
        _request(f"{self._session}/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        """Runs the body of an async function and returns its value."""
        return _request(
            f"{self._session}/execute/sync", {"script": f"return (async () => {{ {script} }})()", "args": []}
        )

    def press(self, *keys: str) -> None:
        """Presses keys of `KEYS`, or letters, one after another."""
        codes = [KEYS.get(key, key) for key in keys]
        actions = [{"type": kind, "value": code} for code in codes for kind in ("keyDown", "keyUp")]
        _request(f"{self._session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def size(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Sets the size of the viewport in pixels, and the color scheme."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self) -> bytes:
        """What the viewport shows, as PNG."""
        return base64.b64decode(_request(f"{self._session}/screenshot"))

    def errors(self) -> list[str]:
        """Console errors since the last call."""
        lines = _request(f"{self._session}/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] == "SEVERE"]

    def _devtools(self, command: str, parameters: dict[str, Any]) -> None:
        _request(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in this folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = f"http://127.0.0.1:{port}"
    try:
        _wait(server)
        options = {"args": [*FLAGS.split(), f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        created = _request(f"{server}/session", {"capabilities": {"alwaysMatch": wanted}})
        session = f"{server}/session/{created['sessionId']}"
        try:
            yield Browser(session)
        finally:
            _request(session, method="DELETE")
    finally:
        driver.terminate()
        driver.wait()


def _wait(server: str) -> None:
    def ready() -> bool:
        with contextlib.suppress(urllib.error.URLError):
            return bool(_request(f"{server}/status")["ready"])
        return False

    if not wait_until(ready, 30):
        raise TimeoutError("chromedriver does not answer")


def _request(address: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """Sends a request to chromedriver and returns the value of its answer.

    Raises:
        RuntimeError: chromedriver's message if it refused, or the script failed.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=patience(120)) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None
