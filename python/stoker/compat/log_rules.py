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
    "user": "{user}",
    "addr": "{addr}",
    "host": "{host}",
    "proto": "{protocol}",
    "uagent": "{agent}",
    "referer": "{referer}",
    "status": "{status}",
    "rsize": "{bytes}",
    "size": "{bytes}",
    "micros": "{time_us}",
    "msecs": "{time_ms}",
    "secs": "{time_s}",
    "tmsecs": "{unix_ms}",
    "time": "{unix}",
    "epoch": "{unix}",
    "ltime": "{time}",
    "ctime": "{time}",
    "ftime": "{time}",
    "pid": "{pid}",
    "wid": "{worker}",
    "modifier1": "0",
    "modifier2": "0",
    "cl": "{header:content-length}",
    "var.CONTENT_LENGTH": "{header:content-length}",
    "var.CONTENT_TYPE": "{header:content-type}",
    "var.REMOTE_ADDR": "{addr}",
    "var.REMOTE_USER": "{user}",
    "var.REQUEST_METHOD": "{method}",
    "var.REQUEST_URI": "{target}",
    "var.SERVER_PROTOCOL": "{protocol}",
    "var.REQUEST_SCHEME": "{scheme}",
    "var.PATH_INFO": "{path}",
    "var.QUERY_STRING": "{query}",
    "var.REMOTE_PORT": "{port}",
}


# The options whose files are opened before uWSGI goes to `chdir`; d is --daemonize.
EARLY = ("logto", "logto2", "daemonize", "d")

# Options that have requests logged although logging is off.
ONLY = {"log-4xx": "", "log-5xx": "", "log-slow": "slow=%dms", "log-big": "big=%d"}


def template(text: str) -> tuple[str, list[str]]:
    """A template of access-log-format, and the fields that it has not."""
    unknown: list[str] = []

    def replace(match: re.Match) -> str:
        if match.group(2):
            return match.group(2) * 2
        name = match.group(1)
        if name.startswith("var.HTTP_") and re.fullmatch(r"[A-Z0-9_]+", name[9:]):
            return "{header:%s}" % name[9:].replace("_", "-").lower()
        if name not in FIELDS:
            unknown.append(name)
            return "-"
        return FIELDS[name]

    result = re.sub(r"%\(([^)]*)\)|([{}])", replace, text)
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

    def note(self, name: str, setting: Setting) -> None:
        """One of the options, by its first name."""
        if name == "disable-logging":
            self.off = setting if names.is_on(setting.value) else None
        elif name == "log-syslog":
            self.place = Setting(setting.name, "syslog", setting.file, setting.line)
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
        number = names.number(setting.value)
        if name in ("log-4xx", "log-5xx"):
            word = name[4:] if names.is_on(setting.value) else ""
        else:
            word = ONLY[name] % number if number > 0 else ""
        if word:
            self.only.append((word, setting))

    def _note_logger(self, requests: bool, setting: Setting) -> None:
        """[NAME ]PLUGIN[:ARGUMENT]"""
        text = (setting.value or "").strip()
        name, blank, rest = text.partition(" ")
        if blank and ":" not in name and "/" not in name:
            self._say(setting, "loggers by name are not there yet (%s): their lines go where the others go" % name)
            return
        kind, _, argument = text.partition(":")
        places = {"file": argument, "logfile": argument, "stdio": "-", "syslog": "syslog"}
        if kind not in places:
            self._say(setting, "%s is not there: file, stdio and syslog are" % kind)
            return
        found = Setting(setting.name, places[kind], setting.file, setting.line)
        if requests:
            self.requests = found
        else:
            self.place = found

    def _say(self, setting: Setting, text: str) -> None:
        self.plan.notices.append("%s: %s: %s" % (where(setting.file, setting.line), setting.name, text))

    def settings(self, early: Callable[[str], str] = str) -> list[tuple]:
        """What stoker is told; `early` makes the names of files that uWSGI opens before it goes to `chdir`."""
        own: list[tuple] = []
        place = self.place
        if place is not None and re.fullmatch(r"[^/]*:\d+", place.value or ""):
            self._say(place, "logs by UDP are not there: they go to standard error")
            place = None
        if place is not None and place.name in EARLY:
            place = Setting(place.name, early(place.value or ""), place.file, place.line)
        if self.daemon is not None:
            own.append(("daemon", "true", self.daemon.file, self.daemon.line))
        if place is not None and place.value != "-":
            own.append(("error-log", place.value, place.file, place.line))
        if self.off is not None and not self.only:
            own.append(("access-log", "off", self.off.file, self.off.line))
            return own
        for word, setting in self.only if self.off is not None else ():
            own.append(("access-log-only", [word], setting.file, setting.line))
        requests = self.requests or place
        if requests is not None:
            own.append(("access-log", requests.value, requests.file, requests.line))
        return own
