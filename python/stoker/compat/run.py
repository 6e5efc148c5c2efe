"""Starts stoker with uWSGI's configuration: what __main__ calls once it has seen that it is one."""

from __future__ import annotations

import os
import sys

from . import detect, language, translate
from .result import ConfigError, Notice

ALLOW_EXEC = "STOKER_UWSGI_EXEC"
MAX_WARNINGS = 100


def main(split: detect.Split, core) -> int:
    """Serves, or checks the configuration; returns the exit code."""
    try:
        result = language.read(
            split.uwsgi, os.environ, allow_exec=os.environ.get(ALLOW_EXEC) == "1"
        )
    except ConfigError as error:
        sys.stderr.write("%s\n" % error)
        return 1
    for line in result.output:
        print(line)
    if result.exit_code is not None:
        return result.exit_code
    if result.show_config:
        sys.stdout.write(language.show_config(result))
        sys.stdout.flush()
    _warn(result.warnings)

    def read(_path: str | None) -> list:
        return translate.translate(result)

    return core.main(split.own, read)


def _warn(warnings: list[Notice]) -> None:
    lines = list(dict.fromkeys(str(warning) for warning in warnings))
    for line in lines[:MAX_WARNINGS]:
        sys.stderr.write("warning: %s\n" % line)
    if len(lines) > MAX_WARNINGS:
        sys.stderr.write("warning: and %d more\n" % (len(lines) - MAX_WARNINGS))
