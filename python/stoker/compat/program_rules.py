"""What runs beside the workers: uWSGI's daemons, crons and alarms as stoker's `program`, `cron` and `alarm`."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import Callable

from . import names
from .result import Setting, display, fail

Say = Callable[[Setting, str], None]

CRON = re.compile(r"\s*([+-]?\d+)\s+([+-]?\d+)\s+([+-]?\d+)\s+([+-]?\d+)\s+([+-]?\d+)\s+(.*)", re.S)
# Of uWSGI's fields: the name, and the values that come.
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("week", 0, 7))
# The keys of attach-daemon2 that have an equivalent of the same kind.
TEXTS = {"uid": "user", "gid": "group", "chdir": "directory", "pidfile": "pidfile"}
SYNONYMS = {
    "command": "cmd", "exec": "cmd", "daemon": "daemonize", "stop_signal": "stopsignal", "reload_signal": "reloadsignal",
}  # fmt: skip


def keyval(text: str) -> dict[str, str]:
    """The pairs of "a=b,c=d"; commas in double quotes, and behind a backslash, separate nothing."""
    parts = [""]
    quoted = escaped = False
    for char in text:
        if escaped:
            parts[-1] += char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    pairs = {}
    for part in parts:
        key, _, value = part.partition("=")
        pairs[SYNONYMS.get(key.strip(), key.strip())] = value
    return pairs


def row(pairs: list[tuple[str, str]]) -> str:
    """As config/row.h reads it."""
    return " ".join('%s="%s"' % (key, value.replace("\\", "\\\\").replace('"', '\\"')) for key, value in pairs)


class Programs:
    """What the settings of one configuration come to."""

    def __init__(self) -> None:
        self.daemons: list[tuple[list[tuple[str, str]], Setting]] = []
        self.stdin = False
        self.alarms: list[tuple[str, str, Setting]] = []
        self.raisers: list[tuple[str, Setting]] = []
        self.crons: list[tuple] = []

    def note(self, name: str, setting: Setting, say: Say) -> None:
        """Takes one up, by its first name."""
        if name == "daemons-honour-stdin":
            self.stdin = names.is_on(setting.value)
        elif name == "attach-daemon2":
            self._keyval(setting, say)
        elif "daemon" in name:
            self._daemon(name, setting)
        elif name == "cron2":
            self._cron2(setting, say)
        elif "cron" in name:
            self._cron(name, setting, say)
        elif name == "alarm":
            self._alarm(setting, say)
        else:
            self.raisers.append((name, setting))

    # daemons

    def _daemon(self, name: str, setting: Setting) -> None:
        command = setting.value or ""
        pairs = []
        if "smart" in name:
            pidfile, blank, command = command.partition(" ")
            if not blank:
                raise fail(setting.file, setting.line, "%s: expected PIDFILE COMMAND", setting.name)
            pidfile, comma, freq = pidfile.partition(",")
            pairs.append(("pidfile", pidfile))
            if comma and names.number(freq) > 0:
                pairs.append(("pidfile-wait", str(names.number(freq))))
            if not name.endswith("2"):
                pairs.append(("background", "true"))
        elif "control" in name:
            pairs.append(("vital", "true"))
        if not command.strip():
            raise fail(setting.file, setting.line, "%s: there is no command", setting.name)
        self.daemons.append(([("command", command), *pairs], setting))

    def _keyval(self, setting: Setting, say: Say) -> None:
        words = keyval(setting.value or "")
        if not words.get("cmd", "").strip():
            raise fail(setting.file, setting.line, "%s: there is no cmd=", setting.name)
        pairs = [("command", words["cmd"])]
        pairs += [(own, words[key]) for key, own in TEXTS.items() if words.get(key)]
        if words.get("pidfile"):
            if "daemonize" not in words:
                pairs.append(("background", "true"))
            if names.number(words.get("freq", "0")) > 0:
                pairs.append(("pidfile-wait", str(names.number(words["freq"]))))
            if "notifypid" in words:
                pairs.append(("notify", "true"))
        elif "control" in words:
            pairs.append(("vital", "true"))
        for key, own in (("stopsignal", "stop-signal"), ("reloadsignal", "reload")):
            if names.number(words.get(key, "0")) > 0:
                pairs.append((own, str(names.number(words[key]))))
        if names.number(words.get("max_throttle", "0")) > 0:
            pairs.append(("backoff", str(names.number(words["max_throttle"]))))
        pairs += [("touch", name) for name in words.get("touch", "").split(";") if name]
        if "stdin" in words:
            pairs.append(("stdin", "true"))
        if "ns_pid" in words:
            say(setting, "ns_pid is left out: it runs in the server's own namespace of processes")
        self.daemons.append((pairs, setting))

    # crons

    def _cron(self, name: str, setting: Setting, say: Say) -> None:
        match = CRON.fullmatch(setting.value or "")
        if match is None:
            raise fail(setting.file, setting.line, "%s: expected MINUTE HOUR DAY MONTH WEEK COMMAND", setting.name)
        times = [str(int(word)) for word in match.groups()[:5]]
        if self._comes(times, setting, say):
            self.crons.append((name, ["%s %s" % (" ".join(times), match.group(6))], setting.file, setting.line))

    def _comes(self, times: list[str], setting: Setting, say: Say) -> bool:
        """uWSGI takes every number, and waits for those that never come."""
        for (field, least, most), word in zip(FIELDS, times):
            value = int(word)
            if value > most or 0 <= value < least or (value < 0 and not any(v % value == 0 for v in range(least, most + 1))):
                say(setting, "there is no %s %d: it never runs, here as in uWSGI" % (field, value))
                return False
        return True

    def _cron2(self, setting: Setting, say: Say) -> None:
        head, blank, command = (setting.value or "").partition(" ")
        if "=" not in head:
            head, command, blank = "", setting.value or "", " "
        words = keyval(head)
        if not blank or not command.strip():
            raise fail(setting.file, setting.line, "cron2: there is no command")
        if "legion" in words:
            say(setting, "it is for the lord of a legion, and there are no legions: left out")
            return
        times = [str(names.number(words.get(field, "-1"))) for field, _, _ in FIELDS]
        if not self._comes(times, setting, say):
            return
        pairs = [(field, time) for (field, _, _), time in zip(FIELDS, times)]
        pairs.append(("unique", "true" if names.number(words.get("unique", "0")) else "false"))
        if "harakiri" in words:
            limit = names.number(words["harakiri"])
            pairs.append(("timeout", str(limit) if limit > 0 else "none"))
        pairs.append(("command", command))
        self.crons.append(("cron", [row(pairs)], setting.file, setting.line))

    # alarms

    def _alarm(self, setting: Setting, say: Say) -> None:
        name, _, rest = (setting.value or "").partition(" ")
        plugin, colon, argument = rest.strip().partition(":")
        if not name or not colon:
            raise fail(setting.file, setting.line, "%s: expected NAME PLUGIN:ARGUMENT", setting.name)
        method = ""
        if plugin in ("cmd", "log"):
            method = "%s:%s" % (plugin, argument if plugin == "cmd" else "")
        elif plugin == "curl":
            method = self._curl(argument, setting, say)
        elif plugin in ("signal", "mule"):
            say(setting, "alarms that go to a %s are not there yet: left out" % plugin)
        else:
            say(setting, "the plugin %s is not there: left out; cmd: runs any command" % display(plugin))
        self.alarms.append((name, method, setting))

    def _curl(self, argument: str, setting: Setting, say: Say) -> str:
        """URL[;OPTION=VALUE...], by the program of that name; "" where it cannot be."""
        url, *options = argument.split(";")
        words = dict(option.partition("=")[::2] for option in options)
        command = ["curl", "-sS", "-o", "/dev/null", "--max-time", words.pop("timeout", "30")]
        if "method" in words:
            command += ["-X", words.pop("method")]
        if "conn_timeout" in words:
            command += ["--connect-timeout", words.pop("conn_timeout")]
        if names.number(words.pop("ssl_no_verify", "0")):
            command.append("-k")
        if "auth_user" in words:
            command += ["-u", "%s:%s" % (words.pop("auth_user"), words.pop("auth_pass", ""))]
        if not url.startswith(("http://", "https://")) or words:
            say(setting, "curl: only http:// and https://, and not %s: left out" % (", ".join(sorted(words)) or display(url)))
            return ""
        if shutil.which("curl") is None:
            say(setting, "it takes the program curl, which is not installed: left out")
            return ""
        return "cmd:" + " ".join(map(shlex.quote, [*command, "-T", "-", url]))

    def _raised(self, setting: Setting, known: set[str], usable: set[str]) -> str:
        """The value without alarms that were left out; "" if none is left."""
        text = (setting.value or "").strip()
        listed, blank, rest = text.partition(" ")
        kept = [name for name in listed.split(",") if name in usable or name not in known]
        return ",".join(kept) + blank + rest if kept else ""

    def settings(self) -> list[tuple]:
        """What stoker is told."""
        own: list[tuple] = []
        for pairs, setting in self.daemons:
            if self.stdin and ("stdin", "true") not in pairs:
                pairs.append(("stdin", "true"))
            if len(pairs) == 1:
                own.append(("attach-daemon", [pairs[0][1]], setting.file, setting.line))
            else:
                own.append(("program", [row(pairs)], setting.file, setting.line))
        own.extend(self.crons)
        known = {name for name, _, _ in self.alarms}
        usable = {name for name, method, _ in self.alarms if method}
        for name, method, setting in self.alarms:
            if method:
                own.append(("alarm", ["%s %s" % (name, method)], setting.file, setting.line))
        for option, setting in self.raisers:
            value = self._raised(setting, known, usable)
            if value:
                own.append((option, [value], setting.file, setting.line))
        return own
