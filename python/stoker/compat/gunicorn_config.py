"""What a user of Gunicorn has said, and where: file, GUNICORN_CMD_ARGS, command line.

The later of these wins, as with Gunicorn. The environment gives the defaults of `workers`
(WEB_CONCURRENCY), `bind` (PORT) and `forwarded_allow_ips`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import importlib.util
import os
import shlex
import sys
import traceback
from dataclasses import dataclass, field

from . import gunicorn_settings
from .result import ConfigError, fail

DEFAULT_FILE = "gunicorn.conf.py"
COMMAND_LINE = "command line"
VARIABLE = "GUNICORN_CMD_ARGS"


@dataclass
class Value:
    """What a setting is, and where that was said; `file` is empty for a default."""

    value: object
    file: str = ""
    line: int = 0


@dataclass
class Config:
    """All settings by name. `said` has those that somebody has set."""

    rows: dict[str, gunicorn_settings.Setting]
    values: dict[str, Value] = field(default_factory=dict)
    path: str | None = None
    module: str | None = None
    warnings: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> object:
        value = self.values.get(name)
        return self.rows[name].default if value is None else value.value

    def is_said(self, name: str) -> bool:
        """Is it something else than Gunicorn's default?"""
        return name in self.values and self.values[name].value != self.rows[name].default

    def set(self, name: str, value: object, file: str, line: int) -> None:
        """Takes a value over; ConfigError if it cannot be one."""
        try:
            parsed = self.rows[name].parse(value)
        except ValueError as error:
            raise fail(file, line, "%s: %s", name, error) from None
        self.values[name] = Value(parsed, file, line)


def parser(rows: dict[str, gunicorn_settings.Setting]) -> argparse.ArgumentParser:
    """Gunicorn's command line."""
    result = argparse.ArgumentParser(
        prog="stoker gunicorn",
        usage="%(prog)s [OPTIONS] [APP_MODULE]",
        description="Takes Gunicorn's options and its gunicorn.conf.py; docs/gunicorn-options.md "
        "says what becomes of each.",
        allow_abbrev=True,
    )
    result.add_argument("-v", "--version", action="version", version=_version())
    result.add_argument("args", nargs="*", help=argparse.SUPPRESS)
    for row in rows.values():
        if not row.flags:
            continue
        words: dict = {"dest": row.name, "default": None}
        note = row.note.replace("%", "%%")
        words["help"] = {"same": note or None}.get(row.fate, "[%s] %s" % (row.fate, note))
        if row.kind == "flag":
            words["action"] = "store_true"
        elif row.kind == "off":
            words.update(action="store_const", const=False)
        elif row.kind == "list":
            words["action"] = "append"
        elif row.name == "proxy_protocol":
            words.update(nargs="?", const="auto")
        result.add_argument(*row.flags, **words)
    return result


def _version() -> str:
    from stoker import __version__

    return "stoker (version %s), taking Gunicorn's configuration" % __version__


def read(argv: list[str], environ: dict[str, str]) -> Config:
    """All that was said; ConfigError, or SystemExit from the command line as with Gunicorn."""
    rows = gunicorn_settings.table()
    config = Config(rows)
    command = parser(rows)
    given = command.parse_args(argv)
    try:
        words = shlex.split(environ.get(VARIABLE, ""))
    except ValueError as error:
        raise ConfigError("%s: %s" % (VARIABLE, error)) from None
    variable = command.parse_args(words)
    _take_environment(config, environ)
    _take_file(config, given.config or variable.config)
    for source, name in ((variable, VARIABLE), (given, COMMAND_LINE)):
        for key, value in vars(source).items():
            if key != "args" and value is not None:
                config.set(key, value, name, 0)
    if given.args:
        config.set("wsgi_app", given.args[0], COMMAND_LINE, 0)
    if len(given.args) > 1:
        config.warnings.append(
            "command line: one application is served; not taken: %s" % " ".join(given.args[1:])
        )
    return config


def _take_environment(config: Config, environ: dict[str, str]) -> None:
    for variable, name, form in (
        ("WEB_CONCURRENCY", "workers", "%s"),
        ("PORT", "bind", "0.0.0.0:%s"),
        ("FORWARDED_ALLOW_IPS", "forwarded_allow_ips", "%s"),
    ):
        if environ.get(variable):
            config.set(name, form % environ[variable], "environment variable " + variable, 0)


def _take_file(config: Config, location: str | None) -> None:
    if location is None:
        if not os.path.exists(DEFAULT_FILE):
            return
        location = DEFAULT_FILE
    if location.startswith("python:"):
        config.module = location[len("python:") :]
    else:
        config.path = location[len("file:") :] if location.startswith("file:") else location
        if not os.path.exists(config.path):
            raise ConfigError("%s: there is no such file" % config.path)
    read_file(config)


def read_file(config: Config) -> None:
    """Runs the file and takes its names; once more at a reload."""
    names, file = _run_file(config)
    lines = _lines(file)
    for name, value in names.items():
        if name in config.rows:
            said = config.values.get(name)  # at a reload, also by what stands above the file
            if said is None or said.file not in (COMMAND_LINE, VARIABLE):
                config.set(name, value, file, lines.get(name, 0))
        elif name in lines and not callable(value) and not name.startswith("_"):
            _suspect(config, name, file, lines[name])


def _run_file(config: Config) -> tuple[dict, str]:
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        if config.module is not None:
            known = sys.modules.get(config.module)
            module = importlib.reload(known) if known else importlib.import_module(config.module)
            return vars(module), getattr(module, "__file__", None) or config.module
        assert config.path is not None
        loader = importlib.machinery.SourceFileLoader("__config__", config.path)
        spec = importlib.util.spec_from_loader("__config__", loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__file__ = config.path
        sys.modules["__config__"] = module
        loader.exec_module(module)
        return vars(module), config.path
    except SystemExit:
        raise
    except BaseException as error:
        where = config.path or config.module or ""
        line = 0
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == config.path:
                line = number
        if isinstance(error, SyntaxError) and error.filename == config.path:
            line = error.lineno or 0
        raise fail(where, line, "%s: %s", type(error).__name__, error) from error


def _lines(file: str) -> dict[str, int]:
    """On which line a name of the file was set last."""
    lines: dict[str, int] = {}
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return lines
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines[node.id] = max(node.lineno, lines.get(node.id, 0))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines[node.name] = node.lineno
    return lines


def _suspect(config: Config, name: str, file: str, line: int) -> None:
    """A name that looks like a setting, and which Gunicorn passes over in silence."""
    near = difflib.get_close_matches(name, config.rows, 1, 0.85)
    if near:
        config.warnings.append(
            "%s:%d: %s is no setting; %s was probably meant" % (file, line, name, near[0])
        )
