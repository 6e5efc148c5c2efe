"""``stoker top``: on a terminal (a pty with an emulator behind it), a dumb one, and a pipe."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from tests.lib.server import test_command as stoker_command

pyte = pytest.importorskip("pyte")

HELLO = """
    import os
    import time

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            wait_for_somebody()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    def wait_for_somebody():
        while not os.path.exists("go"):
            time.sleep(0.01)
"""


@pytest.fixture
def server(serve, tmp_path):
    found = serve(HELLO, "-w3", "--control", tmp_path / "control.sock", ready="/")
    found.control = str(tmp_path / "control.sock")
    found.wait_log(r"\] info: ready after")
    return found


def environment(**extra):
    env = {key: value for key, value in os.environ.items() if not key.startswith("STOKER_")}
    for name in ("LINES", "COLUMNS"):
        env.pop(name, None)
    env.update(extra)
    return env


class Terminal:
    """`stoker top` on a pty of a size."""

    def __init__(self, server, *args, lines=24, columns=80, term="xterm"):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.master, slave = os.openpty()
        self.raw = b""
        self._set_size(lines, columns)
        self.process = subprocess.Popen(
            stoker_command() + ["top", "--control", server.control, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(TERM=term),
            start_new_session=True,
            preexec_fn=self._prepare,
        )
        os.close(slave)

    @staticmethod
    def _prepare():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in the background

    def _set_size(self, lines, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, lines, columns):
        self.screen.resize(lines, columns)
        self._set_size(lines, columns)

    def pump(self, seconds):
        """Takes what is written within some time; False at the end."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.raw += data
        self.stream.feed(data)
        return bool(data)

    @property
    def lines(self):
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self):
        return "\n".join(self.lines)

    def wait(self, pattern, seconds=20):
        """Until the screen matches. A frame comes in pieces, so nothing is said of what the pattern
        does not name: see until()."""

        def matches(lines):
            assert re.search(pattern, "\n".join(lines), re.M), "nothing matched %r" % pattern

        self.until(matches, seconds)
        return self.text

    def until(self, check, seconds=20):
        """Until all that `check` asserts of the lines is true of one and the same screen."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return check(self.lines)
            except AssertionError as error:
                if time.monotonic() > deadline or not self.pump(0.1):
                    raise AssertionError("%s:\n%s" % (error, self.text)) from None

    def keys(self, keys):
        os.write(self.master, keys)

    def end(self, seconds=20):
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.pump(0.05)
        return self.process.wait(1)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


def test_the_table_fits_80_columns(server):
    with Terminal(server, "-d", "0.2") as top:

        def table(lines):
            assert lines[0].startswith("stoker ") and "app:app" in lines[0] and "serving" in lines[0]
            assert "req/s" in lines[1] and "in " in lines[1] and "queue" in lines[1]
            assert "0 restarts" in lines[2]
            assert lines[4].startswith("  W     PID STATE  BUSY")
            rows = [line for line in lines if re.match(r" +\d+ +\d+ ready ", line)]
            assert [int(row.split()[0]) for row in rows] == [1, 2, 3]
            assert lines[-1].startswith("q quit")

        top.until(table)
        # The last column is never written to, so nothing can have wrapped.
        assert all(len(line) < 80 for line in top.lines)
        top.keys(b"q")
        assert top.end() == 0


def test_it_moves(server):
    with Terminal(server, "-d", "0.2") as top:
        top.wait(r"^  3 ")
        assert server.get("/").body == b"hello"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            server.get("/")
            top.pump(0.01)
            if re.search(r"^(?!0\.0 )[\d.k]+ req/s", top.text, re.M) and re.search(r"ready .*us|ready .*ms", top.text):
                break
        else:
            raise AssertionError(top.text)
        top.keys(b"q")
        assert top.end() == 0


def test_stacks_of_the_selected_worker(server, tmp_path):
    with Terminal(server, "-d", "0.2") as top, server.connect() as conn:
        top.wait(r"^  3 ")
        conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        top.wait(r"busy 1/3")
        top.wait(r" 1/1 .*GET /slow$")  # the longest request, with its age
        row = next(line for line in top.lines if re.search(r" 1/1 ", line))
        top.keys(b"j" * (int(row.split()[0]) - 1) + b"s")
        top.wait(r"^stacks of worker %s" % row.split()[0])

        def page(lines):
            # Lines that are too long for the terminal go on in the next ones.
            assert "wait_for_somebody" in re.sub(r"\n +", "", "\n".join(lines))
            assert lines[-1].startswith("q back")

        top.until(page)
        top.keys(b"G\x1b")
        top.wait(r"^  W ")
        (tmp_path / "go").touch()
        assert conn.read_response().body == b"hello"
        top.keys(b"q")
        assert top.end() == 0


def test_replacing_a_worker(server):
    with Terminal(server, "-d", "0.2") as top:
        top.wait(r"^  3 ")
        before = server.worker_pids()
        top.keys(b"jr")
        top.wait(r"^replace worker 2\? y/n")
        top.keys(b"n")
        top.wait(r"^q quit")
        assert sorted(server.worker_pids()) == sorted(before)
        top.keys(b"ry")
        top.wait(r"^worker 2 is process \d+ now")
        assert len(set(before) & set(server.worker_pids())) >= 2
        top.keys(b"q")
        assert top.end() == 0


def test_sorting_and_help(server):
    with Terminal(server, "-d", "0.2") as top:
        top.wait(r"^  3 ")
        top.keys(b"O")
        top.wait(r"^  3 .*\n  2 .*\n  1 ")
        top.keys(b"O")
        top.wait(r"^  1 .*\n  2 .*\n  3 ")
        top.keys(b"oooo")
        top.wait(r"\*RPS")
        top.keys(b"h")
        top.wait(r"^o +sort")
        top.keys(b"q")
        top.wait(r"^q quit")
        top.keys(b"q")
        assert top.end() == 0


@pytest.mark.parametrize("size", [(10, 40), (5, 20), (2, 2), (1, 1), (50, 200)])
def test_resizing(server, size):
    with Terminal(server, "-d", "0.2") as top:
        top.wait(r"^  3 ")
        top.resize(*size)
        for _ in range(10):
            assert top.pump(0.05)
        top.resize(24, 80)
        top.wait(r"^  W     PID.*(\n.*)*^q quit")
        top.keys(b"q")
        assert top.end() == 0


def test_a_small_terminal_scrolls_to_the_selected(server):
    with Terminal(server, "-d", "0.2", lines=7) as top:
        top.wait(r"^  1 (.*\n)+q quit")
        assert not re.search(r"^  3 ", top.text, re.M)
        top.keys(b"jj")
        top.wait(r"^  3 ")
        top.keys(b"q")
        assert top.end() == 0


def test_count_ends_it(server):
    with Terminal(server, "-d", "0.1", "-n", "3") as top:
        assert top.end() == 0


def test_the_end_of_the_server_and_its_return(serve, server, tmp_path):
    with Terminal(server, "-d", "0.2") as top:
        top.wait(r"^  3 ")
        server.stop()
        top.wait(r"(?m)^(no server listens|the server has ended)")
        serve("app:app", "-w1", "--control", server.control, ready="/")
        top.wait(r"^q quit")
        top.wait(r"busy \d/1 ")
        top.keys(b"q")
        assert top.end() == 0


def test_the_terminal_is_given_back(server):
    with Terminal(server, "-d", "0.2") as top:
        top.wait(r"^  3 ")
        settings = termios.tcgetattr(top.master)
        top.process.send_signal(signal.SIGINT)
        assert top.end() == 0
        assert termios.tcgetattr(top.master)[3] & termios.ECHO
        assert not settings[3] & termios.ECHO
        assert b"Traceback" not in top.raw


@pytest.mark.parametrize("term", ["dumb", "", "no-such-terminal"])
def test_a_dumb_terminal_gets_lines(server, term):
    with Terminal(server, "-d", "0.1", "-n", "2", term=term) as top:
        assert top.end() == 0
        while top.pump(0.05) and select.select([top.master], [], [], 0)[0]:
            pass
        assert b"\x1b" not in top.raw
        text = top.raw.decode().replace("\r", "")
        assert len(re.findall(r"^  W     PID", text, re.M)) == 2
        assert all(len(line) < 80 for line in text.splitlines())


def lines_of(server, *args, **kwargs):
    return subprocess.run(
        stoker_command() + ["top", "--control", server.control, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(TERM="xterm"),
        timeout=40,
        text=True,
        **kwargs,
    )


def test_a_pipe_gets_lines(server):
    result = lines_of(server, "-n", "3", "-d", "0.1")
    assert result.returncode == 0 and result.stderr == ""
    blocks = result.stdout.split("\n\n")
    assert len(blocks) == 3
    for block in blocks:
        lines = block.rstrip("\n").split("\n")
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\Z", lines[0])
        assert len(lines) == 5 + 3 and lines[4].startswith("  W     PID")
    # The first look tells averages since the start, so it knows of the one request.
    assert re.search(r"ready .*us|ready .*ms", blocks[0])


def test_a_reader_that_leaves(server):
    process = subprocess.Popen(
        stoker_command() + ["top", "--control", server.control, "-d", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(20) == 0 and error == b""
    process.stderr.close()


def test_lines_end_with_the_server(server):
    process = subprocess.Popen(
        stoker_command() + ["top", "--control", server.control, "-d", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    process.stdout.readline()
    server.stop()
    _, error = process.communicate(timeout=20)
    assert process.returncode == 4 and error == "stoker top: the server has ended\n"


def test_no_server(tmp_path):
    result = subprocess.run(
        stoker_command() + ["top", "--control", str(tmp_path / "none.sock")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert result.returncode == 4 and "no server listens" in result.stderr
