"""A headless Chromium, told what to do by its DevTools protocol."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time

from websockets.sync.client import connect

SECONDS = 60.0
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-port=0 --no-first-run --no-proxy-server"
    " --disable-extensions --disable-background-networking --disable-sync --disable-component-update --disable-default-apps"
).split()


def find():
    """The browser's program, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page. Numbers and names of the protocol: https://chromedevtools.github.io/devtools-protocol/"""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="stoker-browser-")
        self.errors = open(self.folder + "/errors", "w+")
        command = [find(), *OPTIONS, "--user-data-dir=" + self.folder, "about:blank"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors)
        self.number = 0
        self.socket = None
        try:
            self.socket = connect(self._address(), proxy=None, max_size=None, open_timeout=SECONDS).__enter__()
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        except BaseException:
            self.close()
            raise

    def _address(self) -> str:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with open(self.folder + "/errors") as stream:
                found = re.search(r"DevTools listening on (\S+)", stream.read())
            if found:
                return found.group(1)
            time.sleep(0.02)
        with open(self.folder + "/errors") as stream:
            raise AssertionError("the browser has not started: " + stream.read()[-2000:])

    def call(self, method: str, session: str = "", **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(SECONDS))
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", self.session, url=url)

    def evaluate(self, expression: str):
        """The value of an expression, as JSON has it."""
        found = self.call("Runtime.evaluate", self.session, expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < end, "%s: it is not: %r" % (expression, self.evaluate("typeof log == 'undefined' ? null : log"))
            time.sleep(0.02)

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *exc) -> None:
        self.close()
