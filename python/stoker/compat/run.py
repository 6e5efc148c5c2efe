"""Starts stoker with uWSGI's configuration: what __main__ calls once it has seen that it is one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Callable

from . import detect, forgive, hooks, language, translate, uwsgi_module, uwsgi_pidfile
from .result import ConfigError, Notice, Result, fail
from .rules import SCHEMES, Plan

ALLOW_EXEC = "STOKER_UWSGI_EXEC"
MAX_WARNINGS = 100
# The exit codes of an application that cannot be loaded: the engine's, and uWSGI's with need-app.
CANNOT_LOAD = 3
NO_APP = 22
# Set for the interpreter of `home`, so that it does not look for another one again.
ENTERED = "STOKER_UWSGI_HOME"


def main(split: detect.Split, core) -> int:
    """Serves, or checks the configuration; returns the exit code."""
    try:
        result = read(split.uwsgi)
    except ConfigError as error:
        sys.stderr.write("%s\n" % error)
        return 1
    if result.exit_code is not None:
        _show(result)
        return result.exit_code
    try:
        translation = translate.translate(result, core.options())
        _enter_home(translation.plan)  # if it goes there, it begins anew, and what follows is said there
    except ConfigError as error:
        _show(result)
        sys.stderr.write("%s\n" % error)
        return 1
    _show(result)
    _warn(result.warnings)
    for notice in translation.notices:
        sys.stderr.write("warning: %s\n" % notice)
    settings = translation.settings
    plan = translation.plan
    checks = "--check" in split.own
    if plan.need_app and not split.own and not any(own[0] == "app" for own in settings) and not plan.hosted:
        sys.stderr.write("need-app: no application is given: module, wsgi-file or mount name one\n")
        return NO_APP
    if plan.hosted or any(hook.setting.name.endswith(("-pre-app", "-post-app")) for hook in plan.hooks):
        from . import uwsgi_host

        settings = uwsgi_host.host(plan.hosted, settings)
    if plan.mounted:
        from . import uwsgi_host

        uwsgi_host.mount(plan.mounted, plan.callable)
    _prepare(plan)
    uwsgi_module.install(core, *_known(result), spool=plan.spool)
    forgive.install(core)
    try:
        hooked = not checks and hooks.install(plan.hooks, core)
    except hooks.HookError as error:
        sys.stderr.write("%s\n" % error)
        return 1
    listeners: list[Callable] = [uwsgi_module.on_event]
    if hooked:
        listeners.append(hooks.on_event)
    if plan.pidfile2 is not None and not checks:
        listeners.append(uwsgi_pidfile.SecondPidfile(plan.pidfile2.value or "").on_event)
    # What is printed goes to the file of logto, daemonize or logger, too.
    code = core.main(split.own, lambda _path: settings, _all(listeners), True, True)
    return NO_APP if code == CANNOT_LOAD and plan.need_app else code


def _all(listeners: list[Callable]) -> Callable | None:
    """One for all; None for none."""
    if not listeners:
        return None

    def on_event(event: str, number: int, pid: int) -> None:
        for listener in listeners:
            listener(event, number, pid)

    return on_event


def read(argv: list[str]):
    """What the command line and the files come to; ConfigError."""
    return language.read(argv, os.environ, allow_exec=os.environ.get(ALLOW_EXEC) == "1")


def _known(result) -> tuple[dict, dict, list[str], int]:
    """uwsgi.opt, uwsgi.magic_table, the names of the metrics and the number of sockets."""
    opt: dict = {}
    metrics = []
    for setting in result.exported:
        opt[setting.name] = True if setting.value is None else os.fsencode(setting.value)
        if setting.name == "metric":
            words = dict(word.partition("=")[::2] for word in (setting.value or "").split(","))
            metrics.append(words.get("name") or (setting.value or ""))
    magic = {os.fsencode(key): os.fsencode(value) for key, value in result.magic.items()}
    sockets = sum(setting.name in SCHEMES for setting in result.exported)
    return opt, magic, metrics, sockets


def _show(result: Result) -> None:
    """What `print` and `show-config` say."""
    for line in result.output:
        sys.stdout.write(line + "\n")
    if result.show_config:
        sys.stdout.write(language.show_config(result))
    sys.stdout.flush()


def _warn(warnings: list[Notice]) -> None:
    lines = list(dict.fromkeys(str(warning) for warning in warnings))
    for line in lines[:MAX_WARNINGS]:
        sys.stderr.write("warning: %s\n" % line)
    if len(lines) > MAX_WARNINGS:
        sys.stderr.write("warning: and %d more\n" % (len(lines) - MAX_WARNINGS))


def _enter_home(plan: Plan) -> None:
    """Goes on in the interpreter of `home` or `virtualenv`, if that is another one."""
    setting = plan.home_setting
    if setting is None or not plan.home:
        return
    home = os.path.realpath(plan.home)
    entered = os.environ.pop(ENTERED, None)
    if home in (os.path.realpath(sys.prefix), entered):
        return
    python = next(
        (
            path
            for name in ("python3", "python")
            if os.access(path := os.path.abspath(os.path.join(plan.home, "bin", name)), os.X_OK)
        ),
        None,
    )
    if python is None:
        raise fail(setting.file, setting.line, "%s: %s has no bin/python3", setting.name, plan.home)
    found = subprocess.run(
        [python, "-c", "import stoker._core"], capture_output=True, check=False, cwd="/"
    )
    if found.returncode != 0:
        raise fail(
            setting.file,
            setting.line,
            "%s: stoker runs in the interpreter of its application, and %s has no stoker: type %s -m pip install stoker",
            setting.name,
            plan.home,
            os.path.join(plan.home, "bin", "python"),
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ[ENTERED] = home
    os.execv(python, [python, "-m", "stoker", *sys.argv[1:]])


def _prepare(plan: Plan) -> None:
    """What is done to the process itself, and inherited by the workers."""
    import resource

    for name, value in plan.limits.items():
        which = getattr(resource, "RLIMIT_" + name)
        soft, hard = resource.getrlimit(which)
        most = value if os.geteuid() == 0 or hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (most, max(most, hard) if hard != resource.RLIM_INFINITY else hard))
        except (OSError, ValueError) as error:
            sys.stderr.write("warning: the limit %s cannot be %d: %s\n" % (name, value, error))
    if plan.priority is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, plan.priority)
        except OSError as error:
            sys.stderr.write("warning: the priority cannot be %d: %s\n" % (plan.priority, error))
    for name in plan.unset:
        os.environ.pop(name, None)
    os.environ.update(plan.environ)
    # Applications that read a command line find the one that uWSGI shows them.
    sys.argv[:] = ["uwsgi", *(plan.argv or [])]
