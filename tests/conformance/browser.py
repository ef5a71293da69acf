"""Chromium without a screen, driven through the DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess

from websockets.sync.client import connect

import kit

NAMED_KEYS = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "Tab": 9}


class Browser:
    """One page, for a `with`; `complaints` is what its console was told."""

    def __init__(self, width=1280, height=900, dark=False):
        self.size, self.dark = (width, height), dark
        self.complaints, self._ids = [], itertools.count(1)

    def __enter__(self):
        program = shutil.which("chromium") or shutil.which("google-chrome")
        assert program, "there is no chromium; scripts/conformance.sh installs it"
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [program, "--headless=new", *root, "--remote-debugging-port=0", f"--user-data-dir={kit.folder('chromium')}",
             "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-proxy-server",
             "--hide-scrollbars", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0,
        )
        for line in self._process.stderr:
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                break
        else:
            raise AssertionError("chromium ended")
        self._socket, self._session = connect(found[1], max_size=None, proxy=None, ping_interval=None), None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.resize(*self.size)
        self.prefer(dark=self.dark)
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, Exception):
            self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def call(self, method, **params):
        """A command of the protocol and its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            got = json.loads(self._socket.recv(timeout=30))
            if got.get("id") == number:
                assert "error" not in got, (method, got["error"])
                return got["result"]
            self._hear(got)

    def _hear(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(params["args"])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(params["entry"])

    def resize(self, width, height):
        """Another window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def prefer(self, dark):
        """What the system says of colours."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url):
        """Goes there."""
        self.call("Page.navigate", url=url)

    def ask(self, expression):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def text(self, selector="body"):
        """What a person reads there."""
        return self.ask(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def until(self, what, expression, seconds=15):
        """Asks until it is so."""
        return kit.eventually(what, lambda: self.ask(expression), seconds)

    def press(self, *keys):
        """Keys, one after the other."""
        for key in keys:
            named = {"key": key, "code": key, "windowsVirtualKeyCode": NAMED_KEYS[key]} if key in NAMED_KEYS else {"key": key, "text": key}
            if key == "Enter":
                named["text"] = "\r"
            self.call("Input.dispatchKeyEvent", type="keyDown", **named)
            self.call("Input.dispatchKeyEvent", type="keyUp", **{name: value for name, value in named.items() if name != "text"})

    def shoot(self, file, whole=False):
        """A picture of the window, or of the whole page."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(file, "wb") as out:
            out.write(base64.b64decode(picture["data"]))
