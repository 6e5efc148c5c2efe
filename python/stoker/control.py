"""The commands that speak to a running server: ``stoker status``, ``reload``, ``stop`` ...

They speak to the master over its control socket, one JSON object a line each way. The first word of
the command line is taken as a command when it is one of COMMANDS; an application in a module of that
name is served as ``stoker status:app`` or ``stoker ./status.py``.

Exit codes: 0 done, 1 failed (the reason is printed), 2 wrong usage, or several servers to choose
from, 4 no server was found.
"""

from __future__ import annotations

import argparse
import errno
import glob
import json
import os
import socket
import stat
import sys
import textwrap
import time
import unicodedata
from typing import Any, Dict, Sequence

OK = 0
FAILED = 1
USAGE = 2
NO_SERVER = 4

COMMANDS = {
    "status": "show the server and its workers",
    "top": "show them live",
    "ping": "check that the master answers",
    "reload": "replace all workers by new ones that have loaded the code again",
    "upgrade": "replace the master too, by a new process of the same command line",
    "stop": "finish the requests in progress and end",
    "scale": "set the number of workers",
    "recycle": "replace one worker",
    "stack": "print the Python stacks of all threads of a worker",
    "logs": "open the log files again, after a rotation",
    "config": "print the configuration in effect, with the origin of each value",
    "curl": "send one request over HTTP, uwsgi, FastCGI or SCGI, and print the response",
}

Answer = Dict[str, Any]


class ControlError(Exception):
    """What is printed as the one line of a failure, with the exit code."""

    def __init__(self, message: str, code: int = FAILED):
        super().__init__(message)
        self.code = code


# --- text ------------------------------------------------------------------------------------------


def clean(text: object, keep_lines: bool = False) -> str:
    """The text as a terminal may get it: nothing that it would obey."""
    out = []
    for char in str(text):
        if char == "\n" and keep_lines:
            out.append(char)
        elif char == "\t":
            out.append("    " if keep_lines else " ")
        elif unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
            out.append("?")
        else:
            out.append(char)
    return "".join(out)


def format_bytes(count: float) -> str:
    """At most five characters: 0, 999, 9.8K, 123M."""
    if count < 1000:
        return "%d" % count
    for unit in "KMGTP":
        count /= 1024
        if count < 9.95:
            return "%.1f%s" % (count, unit)
        if count < 999.5:
            return "%.0f%s" % (count, unit)
    return "%.0fE" % (count / 1024)


def format_count(count: float) -> str:
    """At most five characters: 0, 9999, 12.3k, 1.2M."""
    if count < 9999.5:
        return "%d" % round(count)
    for unit in "kMGTP":
        count /= 1000
        if count < 99.95:
            return "%.1f%s" % (count, unit)
        if count < 999.5:
            return "%.0f%s" % (count, unit)
    return "%.0fE" % (count / 1000)


def format_rate(rate: float) -> str:
    """At most five characters: 0.0, 12.3, 1234, 12.3k."""
    return "%.1f" % rate if rate < 99.95 else format_count(rate)


def format_seconds(seconds: float) -> str:
    """A time that something takes, in at most five characters: 870us, 1.2ms, 3.4s, 12m."""
    if seconds < 0.0009995:
        return "%.0fus" % (seconds * 1e6)
    if seconds < 0.00995:
        return "%.1fms" % (seconds * 1e3)
    if seconds < 0.9995:
        return "%.0fms" % (seconds * 1e3)
    if seconds < 9.95:
        return "%.1fs" % seconds
    if seconds < 999.5:
        return "%.0fs" % seconds
    if seconds < 59970:
        return "%.0fm" % (seconds / 60)
    return "%.0fh" % (seconds / 3600) if seconds < 3599000 else "%.0fd" % (seconds / 86400)


def format_age(seconds: float) -> str:
    """How long something has lived: 5s, 12m30s, 3h05m, 12d04h."""
    whole = int(seconds)
    if whole < 60:
        return "%ds" % whole
    if whole < 3600:
        return "%dm%02ds" % divmod(whole, 60)
    if whole < 86400:
        return "%dh%02dm" % divmod(whole // 60, 60)
    return "%dd%02dh" % divmod(whole // 3600, 24)


# --- finding the server ----------------------------------------------------------------------------


def _folders() -> list[str]:
    """Where servers put their sockets by themselves; root looks everywhere."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    uid = os.geteuid()
    found = []
    if uid == 0:
        found.append("/run/stoker")
    if runtime.startswith("/"):
        found.append(os.path.join(runtime, "stoker"))
    found.append("/tmp/stoker-%d" % uid)
    if uid == 0:
        found.extend(sorted(glob.glob("/tmp/stoker-[0-9]*")))
        found.extend(sorted(glob.glob("/run/user/[0-9]*/stoker")))
    return list(dict.fromkeys(found))


def _sockets(folder: str) -> list[str]:
    """The sockets in a folder that nobody but its owner can write to."""
    try:
        status = os.lstat(folder)
        names = os.listdir(folder)
    except OSError:
        return []
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022:
        return []
    if os.geteuid() not in (0, status.st_uid):
        return []
    names = [name for name in names if name.endswith(".sock") and name[:-5].isdigit()]
    return [os.path.join(folder, name) for name in sorted(names, key=lambda name: int(name[:-5]))]


def find_servers() -> list[tuple[str, Answer]]:
    """The servers that answer at the default places: path, and the answer to ``ping``."""
    found = []
    for folder in _folders():
        for path in _sockets(folder):
            try:
                with Client(path, 2.0) as client:
                    found.append((path, client.call("ping")))
            except ControlError:
                continue
    return found


def _configured() -> str | None:
    """What the environment or the configuration file here says of the socket."""
    value = os.environ.get("STOKER_CONTROL")
    if value:
        return value
    from stoker import _toml

    try:
        settings = _toml.read(os.environ.get("STOKER_CONFIG") or None)
    except ValueError:
        return None
    for name, setting, _, _ in settings:
        if name == "control" and isinstance(setting, str):
            return setting
    return None


def choose_server(given: str | None) -> str:
    """The path of the socket to speak to."""
    path = given or _configured()
    if path == "off":
        raise ControlError("the control socket is switched off (control = off)", NO_SERVER)
    if path and path != "auto":
        return path
    servers = find_servers()
    if len(servers) > 1:
        # During an upgrade the old server still ends beside the new one.
        staying = [server for server in servers if server[1].get("state") != "stopping"]
        servers = staying or servers
    if not servers:
        raise ControlError(
            "no running server of user %d was found; name its socket by --control PATH"
            % os.geteuid(),
            NO_SERVER,
        )
    if len(servers) > 1:
        lines = ["several servers are running: choose one by --control"]
        for path, answer in servers:
            lines.append("  --control %s  (%s)" % (path, clean(answer.get("app", "?"))))
        raise ControlError("\n".join(lines), USAGE)
    return servers[0][0]


# --- speaking to it --------------------------------------------------------------------------------


class Client:
    """One connection to a control socket."""

    def __init__(self, path: str, timeout: float | None = None):
        self.path = path
        self.raw = b""  # the last answer as it came
        self._buffer = b""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout)
        try:
            self._connect(timeout)
        except OSError as error:
            self._sock.close()
            raise self._no_server(error) from None

    def _connect(self, timeout: float | None) -> None:
        # With a timeout, a full queue is an error at once instead of something to wait for.
        deadline = time.monotonic() + (timeout or 0.0)
        while True:
            try:
                self._sock.connect(self.path)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise socket.timeout() from None
                time.sleep(0.01)

    def _no_server(self, error: OSError) -> ControlError:
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return ControlError("no server listens at %s" % clean(self.path), NO_SERVER)
        if isinstance(error, socket.timeout):
            return ControlError("the server did not answer in time")
        if isinstance(error, PermissionError):
            return ControlError(
                "%s belongs to another user: only that user and root may" % clean(self.path)
            )
        if error.errno == errno.ENAMETOOLONG or "too long" in str(error):
            return ControlError("%s is too long for the path of a socket" % clean(self.path), USAGE)
        reason = error.strerror or str(error)
        return ControlError("%s: %s" % (clean(self.path), reason), NO_SERVER)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, command: str, **fields: object) -> None:
        """Sends a request; its answer is to be received before the next."""
        request = {"command": command, **fields}
        try:
            self._sock.sendall(json.dumps(request).encode("ascii") + b"\n")
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError | None) -> ControlError:
        if isinstance(error, socket.timeout):
            return ControlError("the server did not answer in time")
        return ControlError("the server has ended, or has dropped the connection", NO_SERVER)

    def receive(self) -> Answer:
        """The next answer, as it is: see ``call``."""
        while b"\n" not in self._buffer:
            try:
                data = self._sock.recv(262144)
            except OSError as error:
                raise self._lost(error) from None
            if not data:
                raise self._lost(None)
            self._buffer += data
        self.raw, _, self._buffer = self._buffer.partition(b"\n")
        try:
            answer = json.loads(self.raw.decode("utf-8", "replace"))
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
            raise ControlError("%s does not speak as a stoker server does" % clean(self.path))
        return answer

    def call(self, command: str, **fields: object) -> Answer:
        """The answer to a request; a refusal is a ControlError with the server's sentence."""
        self.send(command, **fields)
        answer = self.receive()
        if not answer["ok"]:
            raise ControlError(clean(answer.get("error", "it failed"), keep_lines=True).rstrip())
        return answer


# --- commands --------------------------------------------------------------------------------------

COLUMNS = (
    ("WORKER", 6),
    ("PID", 8),
    ("STATE", 9),
    ("AGE", 7),
    ("BUSY", 5),
    ("QUEUE", 5),
    ("CONNS", 6),
    ("REQUESTS", 9),
    ("5XX", 5),
    ("RSS", 5),
)


def _row(cells: Sequence[object]) -> str:
    parts = []
    for cell, (name, width) in zip(cells, COLUMNS):
        parts.append(("%-*s" if name == "STATE" else "%*s") % (width, cell))
    return " ".join(parts).rstrip()


def all_restarts(answer: Answer) -> int:
    """Workers that were started in place of others, whatever the cause."""
    return sum(int(count) for count in answer["restarts_by"].values())


def _restarts_text(answer: Answer) -> str:
    causes = ["%d %s" % (count, clean(cause)) for cause, count in answer["restarts_by"].items() if count]
    return _some(all_restarts(answer), "restart") + (" (%s)" % ", ".join(causes) if causes else "")


def _some(count: int, noun: str) -> str:
    return "%s %s%s" % (format_count(count), noun, "" if count == 1 else "s")


def _cache_text(cache: Answer) -> str:
    looks = cache["hits"] + cache["miss"]
    text = "cache %s: %s of %s, %s" % (
        clean(cache["name"]),
        format_count(cache["items"]),
        _some(cache["max_items"], "item"),
        _some(looks, "look"),
    )
    if looks:
        text += " (%d %% found)" % (100 * cache["hits"] // looks)
    return text + (", was full for %s" % format_count(cache["full"]) if cache["full"] else "")


def _beside_lines(answer: Answer) -> list[str]:
    """What runs beside the workers."""
    lines = []
    programs, crons = answer.get("programs") or [], answer.get("crons") or []
    if programs:
        lines += ["", "PROGRAM              PID  STATE         UP RESTARTS"]
    for program in programs:
        lines.append(
            "%-16s %7s  %-9s %6s %8d"
            % (
                clean(program["name"])[:16],
                program["pid"] or "-",
                clean(program["state"]),
                format_age(program["uptime"]) if program["pid"] else "-",
                program["restarts"],
            )
        )
    if crons:
        lines += ["", "CRON                 PID  RUNS  TIME"]
    for cron in crons:
        pids = cron["pids"]
        line = "%-16s %7s %5d  %s  %s" % (
            clean(cron["name"])[:16],
            pids[-1] if pids else "-",
            cron["started"],
            " ".join(clean(word) for word in cron["time"]),
            clean(cron["command"]),
        )
        lines.append(line if len(line) < 80 else line[:76] + "...")
    return lines + [""] if lines else []


def status_lines(answer: Answer) -> list[str]:
    """`stoker status` for people: at most 80 columns, but for what has no limit of its own."""
    totals = answer["totals"]
    lines = [
        "stoker %s, process %d: %s"
        % (clean(answer["version"]), answer["pid"], clean(answer["state"])),
        "  serving %s for %s" % (clean(answer["app"]), format_age(answer["uptime"])),
    ]
    lines.extend("  at %s" % clean(address) for address in answer["addresses"])
    lines.append(
        "  %s (%s failed), %s open, %d busy, %d queued"
        % (
            _some(totals["requests"], "request"),
            format_count(totals["responses_5xx"]),
            _some(totals["connections_open"], "connection"),
            totals["threads_busy"],
            totals["requests_queued"],
        )
    )
    if totals.get("requests_suspended"):
        lines.append("  %s in event loops" % _some(totals["requests_suspended"], "request"))
    lines.append("  %s, %s" % (_restarts_text(answer), _some(answer["reloads"], "reload")))
    last = answer.get("last_reload")
    if isinstance(last, dict) and not last.get("ok", True):
        text = "the last reload: %s" % clean(last.get("text", ""))
        lines.extend(textwrap.wrap(text, 79, initial_indent="  ", subsequent_indent="  "))
    lines.extend("  %s" % _cache_text(cache) for cache in answer.get("caches", []))
    lines.append("")
    lines.append(_row([name for name, _ in COLUMNS]))
    for worker in answer["workers"]:
        state = worker["state"]
        if worker.get("role") == "next" and state == "starting":
            state = "next"
        lines.append(
            _row(
                (
                    worker["worker"],
                    worker["pid"] or "-",
                    clean(state)[:9],
                    format_age(worker["uptime"]),
                    "%d/%d" % (worker["threads_busy"], worker["threads"]),
                    format_count(worker["requests_queued"]),
                    format_count(worker["connections_open"]),
                    format_count(worker["requests"]),
                    format_count(worker["responses_5xx"]),
                    format_bytes(worker["rss"]),
                )
            )
        )
    lines.extend(_beside_lines(answer))
    for worker in answer["workers"]:
        for request in sorted(worker["running"], key=lambda r: -r["age"])[:3]:
            line = "worker %d, request %d: %s %s %s %s" % (
                worker["worker"],
                request["id"],
                clean(request["method"]),
                clean(request["target"]),
                "waits for" if request.get("waiting") else "for",
                format_seconds(request["age"]),
            )
            lines.append(line if len(line) < 80 else line[:76] + "...")
    return lines


def _toml_value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def config_lines(answer: Answer) -> list[str]:
    """`stoker config` for people: as `stoker --check` prints it, what was set coming first."""
    lines = []
    for default in (False, True):
        group = None
        for option in answer["config"]:
            if option["default"] != default:
                continue
            if option["group"] != group:
                group = option["group"]
                lines.append("# %s%s" % (group, ", by default" if default else ""))
            unset = option["value"] is None
            text = "%s%s =" % ("# " if unset else "", option["name"])
            if not unset:
                text += " " + _toml_value(option["value"])
            origin = "unset" if unset else ", ".join(dict.fromkeys(option["origins"]))
            if "effective" in option:
                origin += "; here %d" % option["effective"]
            lines.append(clean("%-42s # %s" % (text, origin)))
    return lines


def _stack(client: Client, args: argparse.Namespace) -> list[Answer]:
    if args.pid is not None:
        return [client.call("stack", pid=args.pid, request=args.request)]
    if args.worker is not None:
        return [client.call("stack", worker=args.worker, request=args.request)]
    if args.request is not None:
        raise ControlError("--request needs the worker: requests are numbered in each")
    states = ("starting", "ready", "draining")
    workers = [w for w in client.call("status")["workers"] if w["state"] in states and w["pid"]]
    if not workers:
        raise ControlError("no worker is there at the moment")
    answers = []
    for worker in workers:
        client.send("stack", pid=worker["pid"])
        answers.append(client.receive())
    if not any(answer["ok"] for answer in answers):
        raise ControlError(clean(answers[0].get("error", "it failed"), keep_lines=True))
    return answers


def _print_stacks(answers: Sequence[Answer]) -> None:
    for index, answer in enumerate(answers):
        if index > 0:
            print()
        if not answer["ok"]:
            print(clean(answer.get("error", "it failed"), keep_lines=True))
            continue
        print("worker %d, process %d" % (answer["worker"], answer["pid"]))
        print(clean(answer["stacks"], keep_lines=True).rstrip("\n"))
        if not answer["complete"]:
            print("(cut: there is more)")


def _simple(client: Client, args: argparse.Namespace) -> Answer:
    """The commands whose answer is that it is done."""
    command = args.command
    if command == "stop":
        return client.call("stop", now=args.now)
    if command == "scale":
        return client.call("scale", workers=args.workers)
    if command == "recycle":
        return client.call("recycle", worker=args.worker)
    if command == "logs":
        return client.call("logs", action=args.action)
    return client.call(command)


def _await_successor(control: str | None, old: int) -> None:
    """After an upgrade: until the next command reaches the new server."""
    for _ in range(50):
        try:
            with Client(choose_server(control), 2.0) as client:
                if client.call("ping")["pid"] != old:
                    return
        except ControlError:
            pass
        time.sleep(0.05)


# What a master that is alive answers at once; the others take as long as they take.
AT_ONCE = ("status", "ping", "config", "logs", "stack")
AT_ONCE_SECONDS = 20.0

DONE = {
    "reload": "the reload is complete",
    "upgrade": "the upgrade is complete",
    "stop": "stopped",
    "scale": "the number of workers is set",
    "recycle": "the worker is replaced",
    "logs": "the log files are opened again",
}


def run(args: argparse.Namespace) -> int:
    """Carries out one command on the server that is meant."""
    timeout = args.timeout
    if timeout is None and args.command in AT_ONCE:
        timeout = AT_ONCE_SECONDS
    with Client(choose_server(args.control), timeout) as client:
        if args.command == "stack":
            answers = _stack(client, args)
            if args.json:
                for answer in answers:
                    print(json.dumps(answer))
            else:
                _print_stacks(answers)
            return OK if all(answer["ok"] for answer in answers) else FAILED
        try:
            old = client.call("ping")["pid"] if args.command == "upgrade" else 0
            answer = _simple(client, args)
        except ControlError:
            if args.json and client.raw:
                print(client.raw.decode("utf-8", "replace"))
                return FAILED
            raise
        if args.command == "upgrade":
            _await_successor(args.control, old)
        if args.json:
            print(client.raw.decode("utf-8", "replace"))
        elif args.command == "status":
            print("\n".join(status_lines(answer)))
        elif args.command == "config":
            print("\n".join(config_lines(answer)))
        elif args.command == "ping":
            print("stoker %s, process %d, answers" % (clean(answer["version"]), answer["pid"]))
        else:
            print(clean(answer.get("text") or DONE[args.command], keep_lines=True))
        return OK


# --- the command line ------------------------------------------------------------------------------


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_count.__name__ = "number"


def _workers(text: str) -> int | str:
    return text if text == "auto" else _count(text)


_workers.__name__ = "number"


def parse_seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


parse_seconds.__name__ = "time"


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stoker " + command,
        description="stoker %s: %s." % (command, COMMANDS[command]),
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 4 no server found.",
        allow_abbrev=False,
    )
    if command == "stop":
        parser.add_argument("--now", action="store_true", help="cut the requests in progress")
    elif command == "scale":
        parser.add_argument(
            "workers", type=_workers, metavar="N|auto", help="auto: by the load, as configured"
        )
    elif command == "recycle":
        parser.add_argument("worker", type=_count, metavar="WORKER", help="its number, from 1")
    elif command == "logs":
        parser.add_argument("action", choices=["reopen"], help="open the files again")
    elif command == "stack":
        parser.add_argument(
            "worker", type=_count, nargs="?", metavar="WORKER", help="its number; none: of all"
        )
        parser.add_argument("--pid", type=_count, help="the worker with this process id")
        parser.add_argument(
            "--request",
            type=_count,
            metavar="ID",
            help="only the thread with this request; status names those that last",
        )
    elif command == "top":
        parser.add_argument(
            "-d", "--delay", type=parse_seconds, default=1.0, metavar="SECONDS", help="between two looks"
        )
        parser.add_argument(
            "-n", "--count", type=_count, metavar="COUNT", help="end after so many looks"
        )
    parser.add_argument(
        "--control",
        metavar="PATH",
        help="the server's control socket, where it is not at its default place",
    )
    if command != "top":
        parser.add_argument("--json", action="store_true", help="print the server's answer")
        parser.add_argument(
            "--timeout", type=parse_seconds, metavar="SECONDS", help="give up waiting so long"
        )
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs ``argv``, whose first word is one of COMMANDS; returns the exit code."""
    command = argv[0]
    if command == "curl":
        from stoker import curl

        return curl.main(argv[1:])
    parser = _parser(command)
    try:
        args = parser.parse_args(argv[1:])
    except SystemExit as end:  # argparse has printed why
        return end.code if isinstance(end.code, int) else USAGE
    args.command = command
    try:
        if command == "top":
            from stoker import top

            return top.run(args.control, args.delay, args.count)
        code = run(args)
        sys.stdout.flush()
        return code
    except ControlError as error:
        print("stoker %s: %s" % (command, error), file=sys.stderr)
        return error.code
    except BrokenPipeError:  # the reader has had enough, as head has
        _silence_stdout()
        return OK
    except KeyboardInterrupt:
        return 130


def _silence_stdout() -> None:
    """So that the interpreter's last flush fails at nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
