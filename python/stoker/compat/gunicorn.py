"""`stoker gunicorn`: Gunicorn's command line, its GUNICORN_CMD_ARGS and its gunicorn.conf.py."""

from __future__ import annotations

import os
import sys

from . import forgive, gunicorn_config, gunicorn_translate
from .result import ConfigError

CANNOT_LOAD = 3


def main(argv: list[str], core) -> int:
    """Serves, or checks the configuration; returns the exit code."""
    try:
        config = gunicorn_config.read(argv, dict(os.environ))
        hosted = gunicorn_translate.needs_hosting(config)
        own = gunicorn_translate.translate(config, hosted, core.options())
    except ConfigError as error:
        sys.stderr.write("%s\n" % error)
        return 1
    for line in gunicorn_translate.notices(config):
        sys.stderr.write("warning: %s\n" % line)
    on_event = None
    if hosted:
        from . import gunicorn_server

        on_event = gunicorn_server.start(config).on_event
    if config["print_config"]:
        for name in sorted(config.rows):
            print("%-33s = %s" % (name, config[name]))
        sys.stdout.flush()
    if config.path is not None:  # a reload reads it again, in another directory perhaps
        config.path = os.path.abspath(config.path)
    checks = config["check_config"] or config["print_config"]
    forgive.install(core)
    code = core.main(["--check"] if checks else [], lambda _path: own, on_event, True, bool(config["capture_output"]))
    # An application that cannot be loaded: Gunicorn's master ends with 3 if a worker was to load it, and else with 1.
    return 1 if code == CANNOT_LOAD and (checks or config["preload_app"]) else code
