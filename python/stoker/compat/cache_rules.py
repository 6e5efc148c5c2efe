"""Caches: uWSGI's `cache` and its options, and `cache2`, as values of stoker's own `cache`."""

from __future__ import annotations

from typing import Callable

from . import names
from .result import Setting, fail

# The words of cache2; uWSGI skips any other one without a word.
WORDS = frozenset(
    "name max_items maxitems items blocksize blocks hash hashsize hash_size keysize key_size store store_sync storesync "
    "store_delete storedelete lastmod math_initial sweep_on_full".split()
)
# On whatever their value is, as uWSGI reads them.
FLAGS = frozenset("bitmap ignore_full purge_lru lru lazy_expire lazy clear_on_full no_expire lastmod store_delete storedelete".split())
REMOTE = frozenset("node nodes sync udp udp_server udp_servers udpserver udpservers".split())
OFF = ("0", "false", "no", "off")

Say = Callable[[Setting, str], None]


class Caches:
    """What the settings of one configuration come to."""

    def __init__(self) -> None:
        self.seen: dict[str, Setting] = {}
        self.rows: list[Setting] = []

    def note(self, name: str, setting: Setting) -> None:
        """Takes one up."""
        if name == "cache2":
            self.rows.append(setting)
        else:
            self.seen[name] = setting

    def _number(self, name: str) -> int:
        return names.number(self.seen[name].value) if name in self.seen else 0

    def _is_on(self, name: str) -> bool:
        return name in self.seen and names.is_on(self.seen[name].value)

    def settings(self, say: Say) -> list[tuple]:
        """The values of `cache`, the old kind first, as uWSGI makes it first."""
        rows = []
        if self._number("cache") > 0:
            rows.append(self._old(self.seen["cache"]))
        rows.extend(self._row(setting, say) for setting in self.rows)
        return rows

    def _common(self, words: list[str]) -> str:
        if self._is_on("cache-no-expire"):
            words.append("no_expire=1")
        return ",".join(words)

    def _old(self, setting: Setting) -> tuple:
        words = ["name=default", "items=%d" % self._number("cache")]
        if self._number("cache-blocksize") > 0:
            words.append("blocksize=%d" % self._number("cache-blocksize"))
        if "cache-store" in self.seen:
            words.append("store=%s" % self.seen["cache-store"].value)
            words.append("storesync=%d" % max(self._number("cache-store-sync"), 0))
        if self._is_on("cache-use-last-modified"):
            words.append("lastmod=1")
        return "cache", [self._common(words)], setting.file, setting.line

    def _row(self, setting: Setting, say: Say) -> tuple:
        words = []
        found = set()
        for part in (setting.value or "").split(","):
            word, _, value = part.partition("=")
            word = word.strip()
            if word in REMOTE:
                say(setting, "%s is left out: caches are not shared over the network" % word)
            elif word in FLAGS:
                if value.strip().lower() in OFF:
                    say(setting, "%s is on, as in uWSGI, which looks at no value of it: leave the word out" % part)
                words.append("%s=1" % word)
                found.add(word)
            elif word in WORDS:
                words.append("%s=%s" % (word, value))
                found.add(word)
            elif word:
                say(setting, "%s is skipped: there is no such word" % word)
        if "name" not in found or not found & {"items", "maxitems", "max_items"}:
            raise fail(setting.file, setting.line, "cache2: it needs name=NAME,items=NUMBER")
        if not found & {"store_sync", "storesync"} and self._number("cache-store-sync") > 0:
            words.append("storesync=%d" % self._number("cache-store-sync"))
        if found & {"lazy", "lazy_expire"}:
            words = [word for word in words if word != "no_expire=1"]
            return "cache", [",".join(words)], setting.file, setting.line
        return "cache", [self._common(words)], setting.file, setting.line
