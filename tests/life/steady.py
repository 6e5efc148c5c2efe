"""Clients that ask all the time, and what the tests of this folder do to a server meanwhile."""

import subprocess
import threading
import time

from tests.lib.server import IO_SECONDS, ProtocolError, ServerError, test_command


class Steady:
    """Threads that ask for a path until told to stop; half of them on a connection each request.

    The others keep theirs. A server may close a connection that idles, so a request on a connection
    that has served before, which ends without a byte of an answer, is sent again, as browsers do;
    ``again`` counts these. Everything else that is no 200 is in ``failures``.
    """

    def __init__(self, server, path="/", threads=4):
        self.server = server
        self.path = path
        self.failures = []
        self.texts = []
        self.again = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(threads)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, value, trace):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            assert self.failures == []
            assert self.texts

    def seen(self):
        """How many answers there have been."""
        return len(self.texts)

    def more(self, count=20):
        """Waits for so many more answers."""
        wait_until(lambda goal=self.seen() + count: self.failures or self.seen() >= goal)

    def _run(self, keeps):
        conn = None
        while not self._stop.is_set():
            try:
                fresh = conn is None
                if fresh:
                    conn = self.server.connect()
                try:
                    response = self.server.get(self.path, conn=conn)
                except (ProtocolError, ConnectionError):
                    if fresh or conn.buffer:
                        raise
                    conn.close()
                    conn = None
                    self.again += 1
                    continue
                if response.status != 200:
                    raise AssertionError("status %d" % response.status)
                self.texts.append(response.text)
                if not keeps or response.will_close:
                    conn.close()
                    conn = None
            except Exception as error:  # noqa: BLE001: a thread hands it to the test
                self.failures.append(repr(error))
                if conn is not None:
                    conn.close()
                conn = None
        if conn is not None:
            conn.close()


def wait_until(what, seconds=IO_SECONDS):
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise ServerError("it did not come true in time")
        time.sleep(0.01)


def command(path, *words, seconds=IO_SECONDS):
    """Runs ``stoker WORDS --control PATH``; what came of it."""
    return subprocess.run(
        [*test_command(), *words, "--control", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=seconds,
    )


def pids(server, count=100):
    """Who answers."""
    return {int(server.get("/pid").text) for _ in range(count)}
