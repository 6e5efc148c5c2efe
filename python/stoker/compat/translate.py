"""From uWSGI's options to stoker's. The table (options.tsv) says for each what becomes of it; here is what cannot be said
in a row.
"""

from __future__ import annotations

from . import names
from .result import ConfigError, Result, Setting, display, fail

# Name, value, file, line: what the engine reads.
Own = tuple


def translate(result: Result) -> list[Own]:
    """The settings of stoker; ConfigError for what has none."""
    table = names.table()
    settings: list[Own] = []
    strange: list[Setting] = []
    for setting in result.settings:
        option = table.find(setting.name)
        if option is None or option.fate == "never" or not option.target:
            strange.append(setting)
            continue
        settings.extend(_one(option, setting))
    if strange:
        first = strange[0]
        raise fail(
            first.file,
            first.line,
            "stoker has no translation of %s",
            ", ".join(dict.fromkeys(display(setting.name) for setting in strange)),
        )
    return _folded(settings)


def _folded(settings: list[Own]) -> list[Own]:
    """One entry a name: of a list all values, of anything else the last one."""
    last: dict[str, Own] = {}
    for name, value, file, line in settings:
        if isinstance(value, list) and name in last:
            value = last[name][1] + value
        last[name] = (name, value, file, line)
    return list(last.values())


def _one(option: names.Option, setting: Setting) -> list[Own]:
    if option.target == "none":
        return []
    value = setting.value
    if option.kind == "flag":
        value = "true" if names.is_on(value) else "false"
    elif option.kind in ("int", "rawint", "int64", "int16"):
        value = str(names.number(value))
    elif value is None:
        value = ""
    if option.target == "bind":
        scheme = "uwsgi://" if option.name in ("socket", "uwsgi-socket") else ""
        return [("bind", [scheme + value], setting.file, setting.line)]
    if option.kind == "list":
        return [(option.target, [value], setting.file, setting.line)]
    return [(option.target, value, setting.file, setting.line)]


__all__ = ["ConfigError", "translate"]
