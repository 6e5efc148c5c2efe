"""Loads the application where uWSGI's configuration wants something done in the interpreter before or instead: import, eval,
paste.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import re
import runpy
import sys

from . import hooks
from .result import Setting

TARGET = "stoker.compat.uwsgi_host:application()"

_hosted: list[Setting] = []
_app = ""
_callable = "application"


def host(hosted: list[Setting], settings: list[tuple]) -> list[tuple]:
    """The settings with the application replaced by `application` below."""
    global _app, _callable
    _hosted[:] = hosted
    rest = []
    where = (hosted[0].file, hosted[0].line) if hosted else ("", 0)
    for own in settings:
        if own[0] == "app":
            _app = own[1]
            where = own[2:4]
        elif own[0] == "callable":
            _callable = own[1]
        else:
            rest.append(own)
    return [*rest, ("app", TARGET, *where)]


def application() -> object:
    """The factory that the engine calls in each process that loads the application."""
    hooks.run("pre-app")
    found = _application()
    hooks.run("post-app")
    return found


def _application() -> object:
    paste = None
    name = "main"
    logs = False
    for setting in _hosted:
        value = setting.value or ""
        if setting.name == "paste-name":
            name = value
        elif setting.name == "paste-logger":
            logs = True
        elif "paste" in setting.name:
            paste = value
            logs = logs or setting.name == "ini-paste-logged"
        elif setting.name in ("wsgi-file", "file"):
            continue  # the application itself
        elif setting.name == "eval":
            exec(compile(value, "<eval of %s>" % setting.file, "exec"), {"__name__": "__uwsgi__"})
        else:
            _import(value)
    if paste is not None:
        return _load_paste(paste, name, logs)
    if not _app:
        raise ImportError("there is no application: module, wsgi-file or mount name one")
    return _load(_app)


def _import(target: str) -> None:
    if target.endswith(".py") or "/" in target:
        runpy.run_path(target, run_name="uwsgi_import")
    else:
        importlib.import_module(target)


def _load(target: str) -> object:
    name, _, attribute = target.partition(":")
    if name.endswith(".py") or "/" in name:
        spec = _specification(name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(name)
    attribute = attribute or _callable
    if attribute.endswith("()"):
        return getattr(module, attribute[:-2])()
    return getattr(module, attribute)


def _specification(path: str) -> importlib.machinery.ModuleSpec | None:
    """Of a file's module; where the ending does not say that it is Python, the option does."""
    if path.endswith(".py"):
        return importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    name = "uwsgi_file_" + re.sub(r"\W", "_", path)  # django.wsgi is not django
    loader = importlib.machinery.SourceFileLoader(name, path)
    return importlib.util.spec_from_file_location(name, path, loader=loader)


def _load_paste(uri: str, name: str, logs: bool) -> object:
    try:
        from paste.deploy import loadapp  # type: ignore[import-not-found]
    except ImportError:
        raise ImportError("paste needs PasteDeploy: pip install PasteDeploy") from None
    path = os.path.abspath(uri.partition(":")[2] if uri.startswith("config:") else uri)
    if logs:
        import logging.config

        logging.config.fileConfig(path, {"__file__": path, "here": os.path.dirname(path)}, disable_existing_loggers=False)
    return loadapp("config:" + path, name=name)
