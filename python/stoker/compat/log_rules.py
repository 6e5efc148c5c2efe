"""Where uWSGI's lines go, and what is in them."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Callable

from . import names
from .result import Setting, where

if TYPE_CHECKING:
    from .rules import Plan

# The fields of log-format.
FIELDS = {
    "uri": "{target}",
    "method": "{method}",
    "user": "{var:REMOTE_USER}",  # of a rule or a front end; {user} is whom a client says to be
    "addr": "{addr}",
    "host": "{host}",
    "proto": "{protocol}",
    "uagent": "{agent}",
    "referer": "{referer}",
    "status": "{status}",
    "rsize": "{bytes}",
    "hsize": "{head_bytes}",
    "size": "{total_bytes}",
    "headers": "{headers}",
    "micros": "{time_us}",
    "msecs": "{time_ms}",
    "secs": "{time_s}",
    "tmsecs": "{start_ms}",
    "tmicros": "{start_us}",
    "time": "{start_unix}",
    "epoch": "{unix}",
    "ltime": "{start}",
    "ctime": "{strftime:%c}",
    "ftime": "{start}",
    "pid": "{pid}",
    "wid": "{worker}",
    "core": "{thread}",
    "switches": "1",
    "vars": "{vars}",
    "pktsize": "{request_bytes}",
    "rss": "{rss}",
    "vsz": "{vsz}",
    "rssM": "{rss_mb}",
    "vszM": "{vsz_mb}",
    "rerr": "{read_errors}",
    "werr": "{write_errors}",
    "ioerr": "{io_errors}",
    "modifier1": "0",
    "modifier2": "0",
    "cl": "{length}",
    "var.CONTENT_LENGTH": "{header:content-length}",
    "var.CONTENT_TYPE": "{header:content-type}",
    "var.REMOTE_ADDR": "{addr}",
    "var.REQUEST_METHOD": "{method}",
    "var.REQUEST_URI": "{target}",
    "var.SERVER_PROTOCOL": "{protocol}",
    "var.REQUEST_SCHEME": "{scheme}",
    "var.QUERY_STRING": "{query}",
    "var.REMOTE_PORT": "{port}",
}


# The options whose files are opened before uWSGI goes to `chdir`; d is --daemonize.
EARLY = ("logto", "logto2", "daemonize", "d")

# Options that have requests logged although logging is off.
ONLY = {
    "log-4xx": "4xx",
    "log-5xx": "5xx",
    "log-zero": "zero",
    "log-sendfile": "sendfile",
    "log-ioerror": "ioerror",
    "log-slow": "slow=%dms",
    "log-big": "big=%d",
}

# What is applied to lines, of requests or of all else; stoker has it under the same names.
LINES = ("log-route", "log-encoder", "log-drain", "log-filter")
REQUESTS = ("log-req-route", "log-req-encoder")

METHODS = ("file", "stdio", "fd", "socket", "syslog", "rsyslog")


def template(text: str, ftime: str = "") -> tuple[str, list[str]]:
    """A template of access-log-format, and the fields that it has not; `ftime` is the format of %(ftime)."""
    unknown: list[str] = []

    def replace(match: re.Match) -> str:
        if match.group(2):
            return match.group(2) * 2
        name = match.group(1)
        if name == "ftime" and ftime:
            return "{strftime:%s}" % ftime
        if name in FIELDS:
            return FIELDS[name]
        if name.startswith("var.HTTP_") and re.fullmatch(r"[A-Z0-9_]+", name[9:]):
            return "{header:%s}" % name[9:].replace("_", "-").lower()
        if not re.fullmatch(r"[ -z~]{1,255}", name):
            unknown.append(name)
            return "-"
        if name.startswith("metric.") and name != "metric.":
            return "{metric:%s}" % name[7:]
        if name.startswith("var.") and name != "var.":
            return "{var:%s}" % name[4:]
        return "{logvar:%s}" % name

    result = re.sub(r"%\(([^)]+)\)|([{}])", replace, text)
    if not re.search(r"%\([^)]+\)", text):
        result = "text:" + result
    return result, list(dict.fromkeys(unknown))


def globs(regexp: str) -> list[str]:
    """Patterns with * for a simple regular expression; none if it is not simple."""
    text = regexp
    start = "" if text.startswith("^") else "*"
    end = "" if text.endswith("$") and not text.endswith("\\$") else "*"
    text = text.lstrip("^").rstrip("$")
    pieces: list[list[str]] = []
    for part in re.split(r"(\([^()]*\))", text):
        if part.startswith("(") and part.endswith(")"):
            pieces.append(re.sub(r"^\?:", "", part[1:-1]).split("|"))
        else:
            pieces.append([part])
    patterns = []
    for words in itertools.product(*pieces):
        word = "".join(words).replace(".*", "*").replace(".+", "?*").replace("/*", "/*")
        word = re.sub(r"\\(.)", r"\1", word)
        if re.search(r"[\\\[\]{}|^$+()]", word) or not word:
            return []
        patterns.append(re.sub(r"\*+", "*", start + word + end))
    return patterns


class Logs:
    """Gathers what the options say, for access-log and error-log."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.place: Setting | None = None
        self.requests: Setting | None = None
        self.daemon: Setting | None = None
        self.off: Setting | None = None
        self.only: list[tuple[str, Setting]] = []
        self.loggers: list[Setting] = []
        self.req_loggers: list[Setting] = []
        self.lines: list[tuple[str, Setting]] = []

    def note(self, name: str, setting: Setting) -> None:
        """One of the options, by its first name."""
        if name == "disable-logging":
            self.off = setting if names.is_on(setting.value) else None
        elif name in ("log-syslog", "log-socket"):
            value = setting.value or ""
            text = name[4:] + ":" * (value != "") + value
            self._note_logger(False, Setting(setting.name, text, setting.file, setting.line))
        elif name in LINES or name in REQUESTS:
            self.lines.append((name, setting))
        elif name in ("daemonize", "daemonize2"):
            self.daemon = self.place = setting
        elif name in ("logto", "logto2"):
            self.place = setting
        elif name in ONLY:
            self._note_only(name, setting)
        else:
            self._note_logger("req" in name, setting)

    def _note_only(self, name: str, setting: Setting) -> None:
        """What is logged although logging is off."""
        word = ONLY[name]
        if "%" in word:
            number = names.number(setting.value)
            word = word % number if number > 0 else ""
        elif not names.is_on(setting.value):
            word = ""
        if word:
            self.only.append((word, setting))

    def _note_logger(self, requests: bool, setting: Setting) -> None:
        """[NAME ]METHOD[:ARGUMENT]"""
        found = re.fullmatch(r"(?:[A-Za-z0-9]+ )?\s*([^:]*)(:.*)?", setting.value or "", re.S)
        method = found.group(1) if found else ""
        if method not in METHODS:
            self._say(setting, "%s is not there: file, stdio, fd, socket, syslog and rsyslog are" % method)
            return
        (self.req_loggers if requests else self.loggers).append(setting)

    def _say(self, setting: Setting, text: str) -> None:
        self.plan.notices.append("%s: %s: %s" % (where(setting.file, setting.line), setting.name, text))

    @staticmethod
    def _simple(loggers: list[Setting]) -> Setting | None:
        """A single logger that is a place as access-log and error-log take it."""
        if len(loggers) != 1:
            return None
        setting = loggers[0]
        kind, _, argument = (setting.value or "").partition(":")
        if (kind == "file" and argument and "=" not in argument) or (kind in ("stdio", "syslog") and not argument):
            place = {"file": argument, "stdio": "-", "syslog": "syslog"}[kind]
            return Setting(setting.name, place, setting.file, setting.line)
        return None

    def _rules(self) -> list[tuple]:
        """Routes, encoders and the like; what leads nowhere is left out, as uWSGI does."""
        known = {(one.value or "").partition(" ")[0] for one in self.loggers + self.req_loggers if " " in (one.value or "")}
        own: list[tuple] = []
        for name, setting in self.lines:
            value = setting.value or ""
            if "route" in name and value.partition(" ")[0] not in known:
                self._say(setting, "without effect: there is no logger %s" % value.partition(" ")[0])
                continue
            own.append((name, [value], setting.file, setting.line))
        return own

    def settings(self, early: Callable[[str], str] = str) -> list[tuple]:
        """What stoker is told; `early` makes the names of files that uWSGI opens before it goes to `chdir`."""
        own: list[tuple] = []
        place = self.place
        if place is not None and re.fullmatch(r"[^/]*:\d+", place.value or ""):
            self.loggers.insert(0, Setting(place.name, "socket:" + (place.value or ""), place.file, place.line))
            place = None
        if place is not None and place.name in EARLY:
            place = Setting(place.name, early(place.value or ""), place.file, place.line)
        rules = self._rules()
        simple = self._simple(self.loggers)
        collected = any(name in LINES for name, *_ in rules) or (bool(self.loggers) and simple is None)
        if not collected and simple is not None and not (simple.value == "-" and place is not None):
            place = simple
        if self.daemon is not None:
            own.append(("daemon", "true", self.daemon.file, self.daemon.line))
        if place is not None and place.value != "-":
            own.append(("error-log", place.value, place.file, place.line))
        if collected:
            own.extend(("logger", [one.value or ""], one.file, one.line) for one in self.loggers)
        own.extend(rules)
        if self.off is not None and not self.only:
            own.append(("access-log", "off", self.off.file, self.off.line))
            return own
        for word, setting in self.only if self.off is not None else ():
            own.append(("access-log-only", [word], setting.file, setting.line))
        return own + self._requests(place, collected)

    def _requests(self, place: Setting | None, collected: bool) -> list[tuple]:
        """Where the lines of requests go."""
        own: list[tuple] = []
        ruled = any(name in REQUESTS for name, _ in self.lines)
        requests = self._simple(self.req_loggers)
        if self.req_loggers and (requests is None or ruled):
            own.extend(("req-logger", [one.value or ""], one.file, one.line) for one in self.req_loggers)
            requests = place
        elif requests is None or requests.value == "-":
            requests = requests if place is None else place
            if collected and not self.req_loggers:
                first = (self.loggers + [setting for _, setting in self.lines])[0]
                requests = Setting(first.name, "stderr", first.file, first.line)
        if requests is not None:
            own.append(("access-log", requests.value, requests.file, requests.line))
        return own
