"""``stoker top``: a server and its workers, live.

The server tells only what it has counted (``status``); rates and percentiles are made here, from
two looks. The first look shows averages since the start.

On a terminal it is a screen of its own that fits 80 columns; where that cannot be (a pipe, a dumb
terminal, no curses) it prints the same as lines, once an interval.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from stoker.control import (
    FAILED,
    NO_SERVER,
    OK,
    Answer,
    Client,
    ControlError,
    all_restarts,
    choose_server,
    clean,
    format_age,
    format_bytes,
    format_count,
    format_rate,
    format_seconds,
)

REQUEST_MIN = 16  # columns that the request gets at least
PIPE_WIDTH = 200  # where there is no terminal whose width would matter
SERVER_SECONDS = 5.0  # for an answer to `status`
MESSAGE_SECONDS = 5.0  # how long the outcome of a key stays
RETRY_SECONDS = 1.0  # between two searches for a server that is gone

HELP = (
    "q      quit",
    "up, k  select the worker above        down, j  the one below",
    "s      show the Python stacks of the selected worker's threads",
    "r      replace the selected worker",
    "o      sort by the next column        O        reverse the order",
    "+, -   look less or more often        space    look now",
    "h      this page",
)


# --- what is shown -----------------------------------------------------------------------------------


def percentile(
    buckets: Sequence[int], bounds: Sequence[int], permille: int
) -> Optional[float]:
    """The time in seconds below which so many of a thousand lie, within a bucket by proportion."""
    total = sum(buckets)
    if total <= 0:
        return None
    rank = total * permille / 1000
    below = 0
    for index, count in enumerate(buckets):
        if count > 0 and below + count >= rank:
            low = bounds[index - 1] if index > 0 else 0
            high = bounds[index] if index < len(bounds) else low
            return (low + (high - low) * max(0.0, rank - below) / count) / 1e6
        below += count
    return None


def _minus(now: Sequence[int], before: Sequence[int]) -> List[int]:
    """The difference of two histograms, of which empty ends are left out."""
    return [
        max(0, count - (before[index] if index < len(before) else 0))
        for index, count in enumerate(now)
    ]


class Row:
    """One worker as it is shown."""

    def __init__(
        self,
        worker: Mapping[str, Any],
        before: Optional[Mapping[str, Any]],
        seconds: float,
        bounds: Sequence[int],
    ):
        old: Mapping[str, Any] = before or {}
        span = seconds if before else max(worker["uptime"], 0.001)
        latency = worker["latency"]
        old_latency = old.get("latency") or {"buckets": [], "sum_us": 0}
        buckets = _minus(latency["buckets"], old_latency["buckets"])
        counted = sum(buckets)
        self.worker = int(worker["worker"])
        self.pid = int(worker["pid"])
        self.state = _short_state(worker)
        self.busy = int(worker["busy"])
        self.threads = int(worker["threads"])
        self.rate = max(0, worker["requests"] - old.get("requests", 0)) / span
        self.average = (latency["sum_us"] - old_latency["sum_us"]) / counted / 1e6 if counted else None
        self.p50 = percentile(buckets, bounds, 500)
        self.p95 = percentile(buckets, bounds, 950)
        self.p99 = percentile(buckets, bounds, 990)
        self.rss = int(worker["rss"])
        self.restarts = int(worker["restarts"])
        self.request = max(worker["running"], key=lambda r: r["age"], default=None)

    def request_text(self) -> str:
        if self.request is None:
            return ""
        return "%s %s%s %s" % (
            format_seconds(self.request["age"]),
            "waits: " if self.request.get("waiting") else "",
            clean(self.request["method"]),
            clean(self.request["target"]),
        )


def _short_state(worker: Mapping[str, Any]) -> str:
    names = {"starting": "start", "ready": "ready", "draining": "drain", "stopping": "stop"}
    state = names.get(worker["state"], "?")
    return "next" if state == "start" and worker["role"] == "next" else state


def _time_cell(seconds: Optional[float]) -> str:
    return "-" if seconds is None else format_seconds(seconds)


# Title, width (negative: to the left), the cell, and what sorting by it compares (large first when
# the flag is set).
Column = Tuple[str, int, Callable[[Row], str], Callable[[Row], Any], bool]
COLUMNS: Tuple[Column, ...] = (
    ("W", 3, lambda r: str(r.worker), lambda r: r.worker, False),
    ("PID", 7, lambda r: str(r.pid) if r.pid else "-", lambda r: r.pid, False),
    ("STATE", -5, lambda r: r.state, lambda r: r.state, False),
    ("BUSY", 5, lambda r: "%d/%d" % (r.busy, r.threads), lambda r: r.busy, True),
    ("RPS", 5, lambda r: format_rate(r.rate), lambda r: r.rate, True),
    ("AVG", 5, lambda r: _time_cell(r.average), lambda r: r.average or 0, True),
    ("P50", 5, lambda r: _time_cell(r.p50), lambda r: r.p50 or 0, True),
    ("P95", 5, lambda r: _time_cell(r.p95), lambda r: r.p95 or 0, True),
    ("P99", 5, lambda r: _time_cell(r.p99), lambda r: r.p99 or 0, True),
    ("RSS", 5, lambda r: format_bytes(r.rss), lambda r: r.rss, True),
    ("RST", 3, lambda r: format_count(r.restarts)[:3], lambda r: r.restarts, True),
    ("REQUEST", 0, Row.request_text, lambda r: r.request["age"] if r.request else 0, True),
)


def _table_line(cells: Sequence[str], width: int) -> str:
    parts = []
    for (_, size, _, _, _), cell in zip(COLUMNS, cells):
        if size > 0:
            parts.append(cell.rjust(size))
        elif size < 0:
            parts.append(cell.ljust(-size))
        else:
            parts.append(cell)
    return " ".join(parts)[: max(1, width)].rstrip()


def _fold(lines: Sequence[str], width: int) -> List[str]:
    """The lines, what is too long going on in the next ones, indented."""
    folded = []
    indent = " " * 6 if width > 20 else ""
    for line in lines:
        folded.append(line[:width])
        line = line[width:]
        while line and width > len(indent):
            folded.append(indent + line[: width - len(indent)])
            line = line[width - len(indent) :]
    return folded


class View:
    """What two looks at a server make: the lines of the head, and the rows of the table."""

    def __init__(self, now: Answer, when: float, before: Optional[Answer], then: float):
        if before is not None and before["pid"] != now["pid"]:
            before = None
        self.now = now
        self.before = before
        self.seconds = max(when - then, 0.001) if before else max(now["uptime"], 0.001)
        old = {worker["pid"]: worker for worker in (before or {}).get("workers", [])}
        bounds = now["latency_bounds_us"]
        self.rows = [
            Row(worker, old.get(worker["pid"]), self.seconds, bounds) for worker in now["workers"]
        ]

    def _rate(self, name: str) -> float:
        old = int(self.before["totals"][name]) if self.before else 0
        return max(0, int(self.now["totals"][name]) - old) / self.seconds

    def head(self) -> List[str]:
        now, totals = self.now, self.now["totals"]
        busy = sum(row.busy for row in self.rows)
        threads = sum(row.threads for row in self.rows)
        return [
            "stoker %s  %s  process %d  %s  up %s"
            % (
                clean(now["version"]),
                clean(now["app"]),
                now["pid"],
                clean(now["state"]),
                format_age(now["uptime"]),
            ),
            "%s req/s  in %sB/s  out %sB/s  5xx %s/s  busy %d/%d  queue %s"
            % (
                format_rate(self._rate("requests")),
                format_bytes(self._rate("bytes_in")),
                format_bytes(self._rate("bytes_out")),
                format_rate(self._rate("responses_5xx")),
                busy,
                threads,
                format_count(totals["requests_queued"]),
            ),
            "%s connections open%s  %s requests  %s restarts  %s reloads"
            % (
                format_count(totals["connections_open"]),
                "  %s waiting" % format_count(totals["requests_suspended"])
                if totals.get("requests_suspended")
                else "",
                format_count(totals["requests"]),
                format_count(all_restarts(now)),
                format_count(now["reloads"]),
            ),
        ]

    def sorted_rows(self, column: int, backwards: bool) -> List[Row]:
        _, _, _, key, large_first = COLUMNS[column]
        rows = sorted(self.rows, key=lambda row: (row.worker, row.pid))
        return sorted(rows, key=key, reverse=large_first != backwards)

    @staticmethod
    def titles(width: int, column: Optional[int] = None) -> str:
        cells = [title for title, _, _, _, _ in COLUMNS]
        if column is not None and column > 0:
            size = abs(COLUMNS[column][1])
            if not size or len(cells[column]) < size:
                cells[column] = "*" + cells[column]
        return _table_line(cells, width)

    @staticmethod
    def line(row: Row, width: int) -> str:
        return _table_line([cell(row) for _, _, cell, _, _ in COLUMNS], width)


class Watcher:
    """Looks at a server, and finds it again when it was replaced."""

    def __init__(self, control: Optional[str]):
        self.control = control
        self.client: Optional[Client] = None
        self._before: Optional[Answer] = None
        self._then = 0.0

    @property
    def has_looked(self) -> bool:
        return self._before is not None

    def connect(self) -> Client:
        """The connection, made when there is none; a ControlError when there is no server."""
        if self.client is None:
            self.client = Client(choose_server(self.control), SERVER_SECONDS)
        return self.client

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def look(self) -> View:
        """The next view; a ControlError when there is no server, and the next call searches."""
        try:
            answer = self.connect().call("status")
        except ControlError:
            self.close()
            raise
        when = time.monotonic()
        view = View(answer, when, self._before, self._then)
        self._before, self._then = answer, when
        return view


# --- lines -------------------------------------------------------------------------------------------


def run_lines(watcher: Watcher, delay: float, count: Optional[int]) -> int:
    """Prints a block of lines for each look."""
    width = PIPE_WIDTH
    if sys.stdout.isatty():
        try:
            width = max(1, os.get_terminal_size(sys.stdout.fileno()).columns - 1)
        except OSError:
            width = 79
    due = time.monotonic()
    done = 0
    while True:
        view = watcher.look()
        lines = ["" for _ in range(1 if done else 0)]
        lines.append(time.strftime("%Y-%m-%d %H:%M:%S"))
        lines.extend(line[:width] for line in view.head())
        lines.append(View.titles(width))
        lines.extend(View.line(row, width) for row in view.sorted_rows(0, False))
        print("\n".join(lines), flush=True)
        done += 1
        if count is not None and done >= count:
            return OK
        due = max(due + delay, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


# --- the screen --------------------------------------------------------------------------------------


class Job:
    """A command that runs beside the screen: its answer is waited for in the screen's own wait."""

    def __init__(self, path: str, title: str, command: str, **fields: object):
        self.title = title
        self.command = command
        self.client = Client(path, SERVER_SECONDS)
        self.client.send(command, **fields)

    def finish(self) -> Tuple[bool, str]:
        """Whether it succeeded, and the text of the answer."""
        try:
            answer = self.client.receive()
        except ControlError as error:
            return False, str(error)
        finally:
            self.client.close()
        if not answer["ok"]:
            return False, clean(answer.get("error", "it failed"), keep_lines=True)
        if self.command == "stack":
            return True, clean(answer["stacks"], keep_lines=True)
        return True, clean(answer.get("text", "done"))


class Screen:
    """The screen: keys, looks and the answers of jobs are waited for in one select."""

    def __init__(self, curses: Any, window: Any, watcher: Watcher, delay: float, count: Optional[int]):
        self.curses = curses
        self.window = window
        self.watcher = watcher
        self.delay = delay
        self.left = count
        self.view: Optional[View] = None
        self.message = ""
        self.message_until = 0.0
        self.column = 0
        self.backwards = False
        self.selected: Optional[Tuple[int, int]] = None  # the worker's number and process
        self.first = 0  # of the rows that are shown
        self.job: Optional[Job] = None
        self.question: Optional[int] = None  # the worker to recycle, if the answer is yes
        self.page: Optional[List[str]] = None  # shown in place of the table
        self.page_title = ""
        self.page_at = 0
        self.resized = False
        self.ended = False
        self.due = time.monotonic()
        self.wake, self._waker = os.pipe()
        for fd in (self.wake, self._waker):
            os.set_blocking(fd, False)

    # drawing

    def _put(self, line: int, text: str, attribute: int = 0) -> None:
        height, width = self.window.getmaxyx()
        if not 0 <= line < height or width < 2:
            return
        # The last column stays free: writing the last cell of a screen scrolls some terminals.
        text = text[: width - 1]
        try:
            self.window.addstr(line, 0, text.ljust(width - 1) if attribute else text, attribute)
        except self.curses.error:
            pass  # the terminal became smaller meanwhile

    def _rows(self) -> List[Row]:
        return self.view.sorted_rows(self.column, self.backwards) if self.view else []

    def _selected_index(self, rows: Sequence[Row]) -> int:
        best = 0
        for index, row in enumerate(rows):
            if (row.worker, row.pid) == self.selected:
                return index
            if self.selected is not None and row.worker == self.selected[0]:
                best = index  # its successor
        return best

    def _draw_table(self, height: int, width: int) -> None:
        rows = self._rows()
        top = 4
        if self.view is not None:
            for index, line in enumerate(self.view.head()):
                self._put(index, line)
        self._put(top, View.titles(width - 1, self.column), self.curses.A_REVERSE)
        room = max(1, height - top - 2)
        index = self._selected_index(rows)
        self.first = max(0, min(self.first, index, len(rows) - room))
        if index >= self.first + room:
            self.first = index - room + 1
        for place, row in enumerate(rows[self.first : self.first + room]):
            chosen = self.first + place == index
            self._put(
                top + 1 + place, View.line(row, width - 1), self.curses.A_BOLD if chosen else 0
            )

    def _draw_page(self, height: int, width: int) -> None:
        page = _fold(self.page or [], width - 1)
        room = max(1, height - 2)
        self.page_at = max(0, min(self.page_at, len(page) - room))
        self._put(0, self.page_title, self.curses.A_REVERSE)
        for place, line in enumerate(page[self.page_at : self.page_at + room]):
            self._put(1 + place, line)

    def _footer(self) -> str:
        if self.question is not None:
            return "replace worker %d? y/n" % self.question
        if self.page is not None:
            return "q back  up/down  page up/down"
        if self.job is not None:
            return self.job.title + " ..."
        return self.message or "q quit  s stacks  r replace  o sort  up/down select  h help"

    def draw(self) -> None:
        height, width = self.window.getmaxyx()
        self.window.erase()
        if self.page is not None:
            self._draw_page(height, width)
        else:
            self._draw_table(height, width)
        self._put(height - 1, self._footer(), self.curses.A_REVERSE)
        self.window.refresh()

    # what happens

    def look(self) -> None:
        try:
            self.view = self.watcher.look()
            if self.message and time.monotonic() >= self.message_until:
                self.message = ""
            if self.left is not None:
                self.left -= 1
                self.ended = self.left <= 0
        except ControlError as error:
            self.tell(str(error), 0.0)
        self.due = time.monotonic() + (self.delay if self.watcher.client else RETRY_SECONDS)

    def start(self, title: str, command: str, **fields: object) -> None:
        if self.job is not None or self.watcher.client is None:
            return
        try:
            self.job = Job(self.watcher.client.path, title, command, **fields)
        except ControlError as error:
            self.tell(str(error))

    def tell(self, text: str, seconds: float = MESSAGE_SECONDS) -> None:
        """Shows a sentence in the last line, for a while."""
        self.message = text.split("\n")[0]
        self.message_until = time.monotonic() + seconds

    def finish_job(self) -> None:
        job, self.job = self.job, None
        if job is None:
            return
        ok, text = job.finish()
        if job.command == "stack" and ok:
            self.page_title = job.title
            self.page = text.rstrip("\n").split("\n")
            self.page_at = 0
        else:
            self.tell(text)

    def _chosen(self) -> Optional[Row]:
        rows = self._rows()
        return rows[self._selected_index(rows)] if rows else None

    def _select(self, step: int) -> None:
        rows = self._rows()
        if rows:
            index = self._selected_index(rows) + step
            row = rows[max(0, min(index, len(rows) - 1))]
            self.selected = (row.worker, row.pid)

    def _key_of_page(self, key: int) -> None:
        curses = self.curses
        height = max(1, self.window.getmaxyx()[0] - 3)
        steps = {
            curses.KEY_UP: -1,
            ord("k"): -1,
            curses.KEY_DOWN: 1,
            ord("j"): 1,
            10: 1,
            curses.KEY_PPAGE: -height,
            ord("b"): -height,
            curses.KEY_NPAGE: height,
            ord(" "): height,
            curses.KEY_HOME: -(10**9),
            ord("g"): -(10**9),
            curses.KEY_END: 10**9,
            ord("G"): 10**9,
        }
        if key in (ord("q"), 27):
            self.page = None
        elif key in steps:
            self.page_at = max(0, self.page_at + steps[key])

    def key(self, key: int) -> None:
        curses = self.curses
        row = self._chosen()
        if self.question is not None:
            worker, self.question = self.question, None
            if key in (ord("y"), ord("Y")):
                self.start("replacing worker %d" % worker, "recycle", worker=worker)
        elif self.page is not None:
            self._key_of_page(key)
        elif key == ord("q"):
            self.ended = True
        elif key in (ord("h"), ord("?")):
            self.page_title, self.page, self.page_at = "keys", list(HELP), 0
        elif key in (curses.KEY_UP, ord("k")):
            self._select(-1)
        elif key in (curses.KEY_DOWN, ord("j")):
            self._select(1)
        elif key == ord("o"):
            self.column = (self.column + 1) % len(COLUMNS)
        elif key == ord("O"):
            self.backwards = not self.backwards
        elif key in (ord("+"), ord("-")):
            self.delay = min(max(self.delay * (2 if key == ord("+") else 0.5), 0.125), 64.0)
            self.tell("a look every %g s" % self.delay)
        elif key == ord(" "):
            self.due = time.monotonic()
        elif key == ord("s") and row is not None:
            self.start("stacks of worker %d (%d)" % (row.worker, row.pid), "stack", pid=row.pid)
        elif key == ord("r") and row is not None:
            self.question = row.worker

    def _resize(self) -> None:
        self.resized = False
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
            self.curses.resizeterm(max(1, size.lines), max(1, size.columns))
        except (OSError, self.curses.error):
            return
        self.window.clear()

    def _wait(self) -> None:
        sources: List[Any] = [sys.stdin.fileno(), self.wake]
        if self.job is not None:
            sources.append(self.job.client.fileno())
        timeout = max(0.0, self.due - time.monotonic())
        ready, _, _ = select.select(sources, [], [], timeout)
        if self.wake in ready:
            try:
                os.read(self.wake, 512)
            except OSError:
                pass
        if self.job is not None and self.job.client.fileno() in ready:
            self.finish_job()
        if sys.stdin.fileno() in ready:
            self._read_keys()

    def _read_keys(self) -> None:
        any_key = False
        while True:
            key = self.window.getch()
            if key == -1:
                break
            any_key = True
            if key == self.curses.KEY_RESIZE:
                self.resized = True
            else:
                self.key(key)
        if not any_key:
            self.ended = True  # the terminal is gone

    def _on_resize(self, number: int, frame: object) -> None:
        self.resized = True

    def run(self) -> int:
        """Until a key or the count ends it."""
        old_handler = signal.signal(signal.SIGWINCH, self._on_resize)
        old_wakeup = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self.window.nodelay(True)
        self.window.keypad(True)
        try:
            self.curses.curs_set(0)
        except self.curses.error:
            pass  # a terminal that cannot hide it
        try:
            while not self.ended:
                if self.resized:
                    self._resize()
                if time.monotonic() >= self.due:
                    self.look()
                self.draw()
                if not self.ended:
                    self._wait()
        finally:
            signal.set_wakeup_fd(old_wakeup)
            signal.signal(signal.SIGWINCH, old_handler)
            os.close(self.wake)
            os.close(self._waker)
            if self.job is not None:
                self.job.client.close()
        return OK


def _load_curses() -> Optional[Any]:
    """The module, if this terminal can show a screen."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return None
    try:
        import curses

        curses.setupterm(fd=sys.stdout.fileno())
        if not curses.tigetstr("cup") or not curses.tigetstr("clear"):
            return None
    except Exception:  # no such module, no such terminal; curses.error cannot be named here
        return None
    return curses


def run(control: Optional[str], delay: float, count: Optional[int]) -> int:
    """`stoker top`; an exit code."""
    watcher = Watcher(control)
    curses = _load_curses()
    try:
        watcher.connect()  # what is wrong from the start is said on the terminal itself
        if curses is None:
            return run_lines(watcher, delay, count)
        result: Dict[str, int] = {}

        def show(window: Any) -> None:
            result["code"] = Screen(curses, window, watcher, delay, count).run()

        curses.wrapper(show)
        return result.get("code", FAILED)
    except ControlError as error:
        if error.code == NO_SERVER and watcher.has_looked:
            print("stoker top: the server has ended", file=sys.stderr)
            return NO_SERVER
        raise
    except KeyboardInterrupt:
        return OK
    finally:
        watcher.close()
