"""A page in headless Chromium, driven by chromedriver over HTTP (W3C WebDriver)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@dataclass(frozen=True)
class Browser:
    """A session of chromedriver; `url` is its own address."""

    url: str

    def visit(self, page: Path, width: int, height: int = 800, dark: bool = False) -> None:
        """Load a file in a window that is so large, a phone's where it is narrow."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.log("browser")
        self.log("performance")
        _ask(f"{self.url}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """What a function body returns."""
        return _ask(f"{self.url}/execute/sync", {"script": script, "args": []})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Entries since the last call: `browser` is the console, `performance` what was loaded."""
        entries: list[dict[str, Any]] = _ask(f"{self.url}/se/log", {"type": kind})
        return entries

    def loaded(self) -> list[str]:
        """Addresses that were asked for since the page was visited."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        sent = [one for one in events if one["method"] == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]

    def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        taken = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(taken["data"]))

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return _ask(f"{self.url}/goog/cdp/execute", {"cmd": command, "params": parameters})


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Skips the test where Chromium or its driver is not installed.

    Args:
        profile: an empty folder.
    """
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if found is None or driver is None:
        missing = "chromedriver" if found else "Chromium"
        pytest.skip(f"no {missing} on PATH (Debian: apt-get install chromium chromium-driver)")
    output = profile / "driver.txt"
    with output.open("wb") as file:
        process = subprocess.Popen([driver, "--port=0"], stdout=file, stderr=file)
    try:
        server = f"http://127.0.0.1:{_port(output, process)}"
        arguments = [*_FLAGS, f"--user-data-dir={profile / 'profile'}"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": found, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = _ask(f"{server}/session", {"capabilities": {"alwaysMatch": wanted}})
        session = f"{server}/session/{answer['sessionId']}"
        try:
            yield Browser(session)
        finally:
            _ask(session, method="DELETE")
    finally:
        process.terminate()
        process.wait(timeout=20)


def _port(output: Path, process: subprocess.Popen[bytes]) -> str:
    """The port that chromedriver says it took."""
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        said = re.search(r"started successfully on port (\d+)", output.read_text(errors="replace"))
        if said:
            return said[1]
        time.sleep(0.05)
    raise AssertionError(f"chromedriver did not start: {output.read_text(errors='replace')}")


def _ask(url: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json; charset=utf-8"}, method=method
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    with opener.open(request, timeout=60) as answer:
        return json.load(answer)["value"]
