"""Loads applications as uWSGI does where the engine would do it in another way: files under names of their own, and what is
done in the interpreter before: import, eval, paste.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
import types

from . import hooks
from .result import Setting
from .rules import HOST

TARGET = HOST + ":application()"

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
    files = [setting.value or "" for setting in hosted if setting.name in ("wsgi-file", "file")]
    if _app in files or _app in [os.path.join(".", file) for file in files]:
        _app = ""  # it is loaded as the file that it is
    return [*rest, ("app", TARGET, *where)]


def mount(files: list[str], callable_name: str) -> None:
    """Makes factories of files that are mounted: mounted_0, mounted_1 ..."""
    for index, file in enumerate(files):
        globals()["mounted_%d" % index] = functools.partial(_mounted, file, callable_name)


def _mounted(file: str, callable_name: str) -> object:
    return _load_paste(file, "main", False) if file.endswith(".ini") else _load_file(file, callable_name)


def application() -> object:
    """The factory that the engine calls in each process that loads the application."""
    hooks.run("pre-app")
    found = _application()
    hooks.run("post-app")
    return found


def _application() -> object:
    for setting in sorted(_hosted, key=lambda one: not one.name.startswith("shared")):
        if setting.name.endswith("import"):
            _import(setting.value or "")
    paste, name, logs, file, evaluated = None, "main", False, None, None
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
            file = value
        elif setting.name == "eval":
            evaluated = setting
    found = []  # the first is the one, all are loaded
    if _app:
        found.append(_load(_app))
    if file:
        found.append(_load_file(file, _callable))
    if paste is not None:
        found.append(_load_paste(paste, name, logs))
    if evaluated is not None:
        found.append(_evaluate(evaluated, not found))
    found = [one for one in found if one is not None]
    if not found:
        raise ImportError("there is no application: module, wsgi-file or mount name one")
    return found[0]


def _evaluate(setting: Setting, is_app: bool) -> object:
    module = types.ModuleType("uwsgi_eval_config")
    sys.modules[module.__name__] = module
    exec(compile(setting.value or "", "<eval of %s>" % setting.file, "exec"), module.__dict__)
    return _find(module, _callable, "eval") if is_app else getattr(module, _callable, None)


def _import(target: str) -> None:
    """What fails is told, and nothing else happens: as there."""
    try:
        if target.endswith(".py") or "/" in target:
            _run_file(target, pythonize(target))
        else:
            importlib.import_module(target)
    except Exception:
        traceback.print_exc()
        sys.stderr.write("import: %s has failed; the server goes on without it\n" % target)


def _load(target: str) -> object:
    name, _, attribute = target.partition(":")
    attribute = attribute or _callable
    if name.endswith(".py") or "/" in name:
        return _load_file(name, attribute)
    return _find(importlib.import_module(name), attribute, name)


def _load_file(path: str, attribute: str) -> object:
    return _find(_run_file(path, "uwsgi_file_" + pythonize(path)), attribute, path)


def _find(module: types.ModuleType, attribute: str, where: str) -> object:
    calls = attribute.endswith("()")
    found = getattr(module, attribute[:-2] if calls else attribute, None)
    if found is None and attribute == "application":
        found = getattr(module, "app", None)  # uWSGI would not, but it is meant
    if found is None:
        raise ImportError("%s has no %r: `callable` says what its application is called" % (where, attribute))
    return found() if calls else found


def pythonize(path: str) -> str:
    """The name of a file's module."""
    name = path.replace(".", "_").replace("/", "_")
    return name[:-3] if name.endswith("_py") else name


def _run_file(path: str, name: str) -> types.ModuleType:
    """The module of a file, whatever the file's ending."""
    place = os.path.abspath(path)  # a relative __file__ would be another one behind a chdir
    loader = importlib.machinery.SourceFileLoader(name, place)
    spec = importlib.util.spec_from_file_location(name, place, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


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
