"""From uWSGI's options to stoker's. The table (options.tsv) says for each what becomes of it; what cannot be said in a
row is in rules.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import names, route_rules, rules
from .result import ConfigError, Result, Setting, fail, where

# Name, value or values, file, line: what the engine reads.
Own = tuple


@dataclass
class Translation:
    """`settings` for the engine, what has to be done to this process before it, and what the user is told."""

    settings: list[Own] = field(default_factory=list)
    plan: rules.Plan = field(default_factory=rules.Plan)
    notices: list[str] = field(default_factory=list)


def translate(result: Result, options: dict[str, bool]) -> Translation:
    """The settings of stoker; ConfigError for what cannot be. `options`: what the engine has."""
    table = names.table()
    translation = Translation()
    without: dict[str, list[Setting]] = {"later": [], "never": []}
    work = rules.Work(result, options, translation.plan, table)
    for setting in result.settings:
        option = table.find(setting.name)
        if option is None:
            continue  # a placeholder
        if option.kind == "route" and route_rules.is_left_out(option.name, setting):
            without["later"].append(setting)
        if option.fate in without:
            if option.kind != "flag" or names.is_on(setting.value):
                _check_guard(option, setting)
                without[option.fate].append(setting)
            continue
        work.note(option, setting)
    settings = work.finish()
    if result.strict and without["later"]:
        first = without["later"][0]
        raise fail(first.file, first.line, "strict: not there yet: %s", _listed(without["later"]))
    translation.notices = _notices(without) + translation.plan.notices
    translation.settings = _folded(settings)
    return translation


def _check_guard(option: names.Option, setting: Setting) -> None:
    """What is left out must not open what it guards."""
    if option.name == "static-skip-ext":
        raise fail(
            setting.file,
            setting.line,
            "%s: not there yet, and left out it would let everybody have what it keeps from them: see `stoker explain %s`",
            setting.name,
            option.name,
        )


def _listed(settings: list[Setting]) -> str:
    places: dict[str, str] = {}
    for setting in settings:
        places.setdefault(setting.name, where(setting.file, setting.line))
    return ", ".join("%s (%s)" % item for item in places.items())


def _notices(without: dict[str, list[Setting]]) -> list[str]:
    lines = []
    if without["later"]:
        lines.append("not there yet, and left out: " + _listed(without["later"]))
    if without["never"]:
        lines.append("without effect: " + _listed(without["never"]))
    if lines:
        lines.append("`stoker explain NAME` says why, and what to use instead")
    return lines


def _folded(settings: list[Own]) -> list[Own]:
    """One entry a name: of a list all values, of anything else the last one."""
    last: dict[str, Own] = {}
    for name, value, file, line in settings:
        if isinstance(value, list) and name in last:
            value = last[name][1] + value
        last[name] = (name, value, file, line)
    return list(last.values())


__all__ = ["ConfigError", "Translation", "translate"]
