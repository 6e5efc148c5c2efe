"""uWSGI's configuration language: from a command line and an environment to the options that uWSGI would act upon.

The order is uWSGI's. Variables UWSGI_* come first, then the command line from left to right, then the arguments without
a dash. An option that loads a file is replaced by what the file says as soon as it is seen, and so acts everything
that is marked immediate in the table, on its raw value. Then three passes expand the values of all that has not acted:
$(ENV), @(file), %(placeholder). Then the rest is applied in order; `inherit` loads its file only now, so its values are
not expanded, and come behind all others.

A name that no option has is a placeholder, unless `strict` is on. The first value of a name is what %(name) gives.
"""

from __future__ import annotations

import os
import socket
from typing import Iterable

from . import commandline, expand, formats, logic, names, source, traps
from .result import COMMAND_LINE, ConfigError, Notice, Result, Setting, display, fail, where

MAX_ITEMS = 100000
MAX_BYTES = 16 << 20  # of all keys and values
MAX_DEPTH = 32

# Variables of the environment that begin as options do and are none.
NO_OPTIONS = frozenset(
    "RELOADS VASSALS_DIR EMPEROR_FD BROODLORD_NUM EMPEROR_FD_CONFIG EMPEROR_PROXY JAIL_PID ORIGINAL_PROC_NAME".split()
)


class Item:
    """One thing that was said: uWSGI's exported option."""

    __slots__ = ("key", "value", "file", "line", "chain", "done", "option", "inherited")

    def __init__(self, key: str, value: str | None, file: str, line: int, chain: tuple):
        self.key = key
        self.value = value
        self.file = file
        self.line = line
        self.chain = chain  # the files that led here: ((path, section), ...)
        self.done = False  # has acted, or is a placeholder for good
        self.option: names.Option | None = None
        self.inherited = False

    def store(self, value: str) -> None:
        self.value = value


class Custom:
    """An option that `declare-option` has made."""

    def __init__(self, name: str, template: str):
        self.name = name
        self.template = template

    def settings(self, item: Item) -> Iterable[Setting]:
        """The options that it stands for; $1, $2 ... are the words of its value."""
        value = item.value or ""
        words = [word for word in value.split(" ") if word] or [""]
        words += [""] * (value.count(" ") + 1 - len(words))
        for part in self.template.split(";"):
            if not part:
                continue
            name, equals, text = part.partition("=")
            if not equals:
                return
            for number, word in enumerate(words, 1):
                name = name.replace("$%d" % number, word)
                text = text.replace("$%d" % number, word)
            yield Setting(name, text, item.file, item.line)


class Reader:
    """The state while a configuration is read."""

    def __init__(self, environ, *, cwd: str | None = None, allow_exec: bool = False, stdin=None):
        self.environ = dict(environ)
        self.table = names.table()
        self.result = Result()
        self.notices = self.result.warnings
        self.items: list[Item] = []
        self.first: dict[str, Item] = {}
        self.custom: dict[str, Custom] = {}
        self.magic = source.Magic(cwd or os.getcwd(), environ)
        self.context = logic.Context(
            self.environ,
            socket.gethostname(),
            self.value_of,
            self.environ.get("UWSGI_RELOADS", "0") not in ("", "0"),
        )
        self.block: logic.Block | None = None
        self.running = False  # an option of a block is being added
        self.blacklist: str | None = None
        self.whitelist: str | None = None
        self.last_file: str | None = None
        self.chain: tuple = ()
        self.mode: str | None = None
        self.injected: dict[str, list[str]] = {"inject-before": [], "inject-after": []}
        self.allow_exec = allow_exec
        self.stdin = stdin
        self.inherited = False
        self.stopped = False
        self.size = 0
        self.setting = 0  # options that set options, one in the other
        self.placeholders: set[str] = set()  # the names that some %(...) asked for

    def value_of(self, name: str) -> str | None:
        item = self.first.get(name)
        return item.value if item else None

    # --- adding ---

    def add(
        self, key: str, value: str | None, file: str, line: int, placeholder: bool = False
    ) -> None:
        """One option or placeholder, with all that it does at once."""
        if self.stopped:
            return
        self._check_lists(key, file, line)
        if not self.running:
            if key in logic.ENDS:
                self._end_block(key, file, line)
            elif self.block:
                self._in_block(key, value, file, line)
                return
        if len(self.items) >= MAX_ITEMS:
            raise fail(file, line, "more than %d options", MAX_ITEMS)
        self._count(len(key) + len(value or ""), file, line)
        _check_text(key, value or "", file, line)
        item = Item(key, value, file, line, self.chain)
        item.inherited = self.inherited
        self.items.append(item)
        self.first.setdefault(key, item)
        item.option = self.table.find(key)
        if placeholder:
            if item.option or key in self.custom:
                raise fail(file, line, "%s is an option and cannot be a placeholder", display(key))
            item.done = True
            return
        if item.option is None and key not in self.custom:
            if self.result.strict:
                raise self._unknown(item)
            return
        if item.option and item.option.immediate:
            self._act(item)
            item.done = True

    def _count(self, size: int, file: str, line: int) -> None:
        self.size += size
        if self.size > MAX_BYTES:
            raise fail(file, line, "the values are over %d bytes by now", MAX_BYTES)

    def _check_lists(self, key: str, file: str, line: int) -> None:
        if self.blacklist is not None and key.lower() in self.blacklist.lower().split():
            raise fail(file, line, "%s is forbidden by blacklist", display(key))
        if self.whitelist is not None and key.lower() not in self.whitelist.lower().split():
            raise fail(file, line, "%s is forbidden by whitelist", display(key))

    def _unknown(self, item: Item) -> ConfigError:
        near = self.table.nearest(item.key)
        return fail(
            item.file,
            item.line,
            "strict: there is no option %s%s",
            display(item.key),
            "; did you mean %s?" % near if near else "",
        )

    def _end_block(self, key: str, file: str, line: int) -> None:
        if not self.block:
            self.notice(file, line, "%s ends nothing" % key)
        self.block = None

    def _in_block(self, key: str, value: str | None, file: str, line: int) -> None:
        block = self.block
        assert block is not None
        if key == "else":
            self.notice(
                file,
                line,
                "uWSGI 2.0 has no else: what follows belongs to the same block; write endif and the "
                "opposite condition (if-not-...)",
            )
        try:
            turns = block.turns(self.context)
        except ConfigError as error:
            raise fail(block.file, block.line, "%s", error) from None
        if not turns and logic.opens(key):
            self.notice(
                file,
                line,
                "%s is dropped with the rest of %s (line %d), and the first end ends both: uWSGI's blocks "
                "cannot be nested, and it refuses this where the outer one holds"
                % (key, block.name, block.line),
            )
        self.running = True
        try:
            for about in turns:
                self.add(key, logic.substitute(value, about), file, line)
        finally:
            self.running = False

    def notice(self, file: str, line: int, text: str) -> None:
        self.notices.append(Notice(file, line, text))

    # --- options that act at once ---

    def _act(self, item: Item) -> None:
        key, value = item.key, item.value
        option = item.option
        assert option is not None
        if logic.opens(key):
            if self.block:
                raise fail(
                    item.file,
                    item.line,
                    "%s inside of %s (line %d): uWSGI's blocks cannot be nested; end the first one "
                    "before it",
                    key,
                    self.block.name,
                    self.block.line,
                )
            self.block = logic.Block(key, value or "", item.file, item.line)
        elif option.kind == "load":
            self._load_option(item)
        elif option.name in ACTIONS:
            ACTIONS[option.name](self, item)

    def _load_option(self, item: Item) -> None:
        name = item.value or ""
        if item.key in formats.READERS:
            self.load(name, item.key, item)
            return
        ending = formats.format_of(name)
        if ending is None:
            if formats.format_of(source.split_section(name)[0]):
                hint = "; a section is named by ini = file.ini:section"
            else:
                hint = "; a name that ends in .ini, .yaml, .yml, .json or .xml was expected"
            raise fail(item.file, item.line, "%s = %s: of which format?%s", item.key, display(name), hint)
        first = self.magic.first
        self.magic.first = True
        self.load(name, ending, item)
        self.magic.first = first

    def load(self, name: str, kind: str, item: Item) -> None:
        """Adds what a section of a file says."""
        path, section = source.split_section(name)
        asked = bool(section)
        ini = kind == "ini"
        if section is not None and not path:
            if not ini or self.last_file is None:
                raise fail(item.file, item.line, "%s names a section and no file", display(name))
            path = self.last_file
            own = item.chain[-1][1] if item.chain else path
            if own != path:
                self.notice(
                    item.file,
                    item.line,
                    "%s is looked for in %s, the file that was read last, and not in this one"
                    % (display(name), path),
                )
        if not path:
            raise fail(item.file, item.line, "%s: expected the name of a file", item.key)
        parts = [(before, self._injected(before, item)) for before in self.injected["inject-before"]]
        parts.append(("standard input" if path == "-" else path, self._content(path, item)))
        parts += [(after, self._injected(after, item)) for after in self.injected["inject-after"]]
        self.magic.fill(name)
        if ini:
            self.last_file = path
        mark = (os.path.realpath(path) if path != "-" else path, path, section or "uwsgi")
        self._guard(mark, item)
        doc = formats.Document(
            "standard input" if path == "-" else path, [], section or "uwsgi", asked, self.notices
        )
        doc.mode = self.mode
        if kind.startswith("xml") and asked:
            item.value = path  # uWSGI cuts the name where it stands
        pieces = source.Pieces(parts)
        mine = len(self.notices)
        doc.lines = source.magic_lines(pieces.text, self.magic.table, doc.file, self.notices)
        if path != "-" and path not in self.result.files:
            self.result.files.append(path)
        above, self.chain = self.chain, item.chain + (mark,)
        try:
            said = list(formats.READERS[kind](doc))
            for notice in self.notices[mine:]:
                notice.file, notice.line = pieces.origin(notice.line, doc.file)
            for key, value, line in said:
                self.add(key, value, *pieces.origin(line, doc.file))
        finally:
            self.chain = above

    def _injected(self, name: str, item: Item) -> str:
        return source.read_text(name, (item.file, item.line), self.stdin)

    def _guard(self, mark: tuple, item: Item) -> None:
        for seen in item.chain:
            if seen[0] == mark[0] and seen[2] == mark[2]:
                way = [step[1] for step in item.chain] + [mark[1]]
                raise fail(
                    item.file,
                    item.line,
                    "%s includes itself: %s",
                    "[%s] of %s" % (mark[2], mark[1]),
                    " > ".join(way[-5:]),
                )
        if len(item.chain) >= MAX_DEPTH:
            raise fail(item.file, item.line, "files that include files, %d deep", MAX_DEPTH)

    def _content(self, path: str, item: Item) -> str:
        scheme = source.scheme_of(path)
        if not scheme:
            return source.read_text(path, (item.file, item.line), self.stdin)
        if scheme == "exec":
            return self._exec(path, item.file, item.line)
        raise fail(
            item.file,
            item.line,
            "%s: configuration is not read from %s://; put it in a file, or give it on standard input "
            "(--ini -)",
            display(path),
            scheme,
        )

    def _exec(self, path: str, file: str, line: int) -> str:
        """What a command prints; only where it is switched on."""
        if not self.allow_exec:
            raise fail(
                file,
                line,
                "%s: commands are run only with STOKER_UWSGI_EXEC=1 in the environment",
                display(path),
            )
        import subprocess

        command = path.partition("://")[2]
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise fail(file, line, "%s: did not end within 60 s", display(path)) from None
        if done.returncode != 0:
            raise fail(file, line, "%s: exit code %d", display(path), done.returncode)
        if len(done.stdout) > source.MAX_FILE or b"\0" in done.stdout:
            raise fail(file, line, "%s: the output is no configuration", display(path))
        try:
            return done.stdout.decode("utf-8")
        except UnicodeDecodeError:
            raise fail(file, line, "%s: the output is not UTF-8", display(path)) from None

    # --- the passes ---

    def finish(self) -> Result:
        """Expands and applies what has been added."""
        if self.block:
            self.notice(
                self.block.file,
                self.block.line,
                "%s is not ended; it holds for all that follows" % self.block.name,
            )
        for symbol, lookup in (("$", self.environ.get), ("@", None), ("%", None)):
            for item in self.items:
                if item.value is None or item.done:
                    continue
                use = lookup or (self._file_pass(item) if symbol == "@" else self._placeholder)
                before = len(item.value)
                try:
                    item.value = expand.expand(item.value, symbol, use, item.store)
                    self._count(len(item.value) - before, item.file, item.line)
                except expand.Endless:
                    raise fail(
                        item.file,
                        item.line,
                        "%s contains itself by way of %s(...); uWSGI would never come to an end",
                        display(item.key),
                        symbol,
                    ) from None
        self._apply()
        self.block = None
        traps.look(self)
        self.result.exported = [
            Setting(item.key, item.value, item.file, item.line) for item in self.items
        ]
        self.result.magic = dict(self.magic.table)
        return self.result

    def _placeholder(self, key: str) -> str | None:
        self.placeholders.update(key.split(" "))
        return expand.placeholder(key, self.value_of)

    def _file_pass(self, item: Item):
        def read(name: str) -> str:
            scheme = source.scheme_of(name)
            if scheme == "exec":
                text = self._exec(name, item.file, item.line)
            elif scheme:
                raise fail(
                    item.file, item.line, "@(%s): nothing is read from %s://", name[:80], scheme
                )
            else:
                text = source.read_text(name, (item.file, item.line), self.stdin)
            return text[:-1] if text[-1:] in ("\n", "\r") else text

        return read

    def _apply(self) -> None:
        at = 0
        while at < len(self.items) and not self.stopped:
            item = self.items[at]
            at += 1
            if item.done:
                if item.option and item.option.kind not in ("logic", "load"):
                    self._setting(item)
                continue
            item.done = True
            if item.key in self.custom:
                for setting in self.custom[item.key].settings(item):
                    self._custom_setting(item, setting)
            elif item.option is None:
                if self.result.strict:
                    raise self._unknown(item)
            elif item.option.kind == "load":
                self.inherited = True
                self._load_option(item)
                self.inherited = False
            else:
                if item.option.kind == "int" and names.number(item.value) < 0:
                    raise fail(
                        item.file,
                        item.line,
                        "%s = %s: uWSGI takes no negative number here",
                        item.key,
                        display(item.value or ""),
                    )
                if item.option.name in APPLIED:
                    APPLIED[item.option.name](self, item)
                self._setting(item)

    def _setting(self, item: Item) -> None:
        if item.option is not None and item.option.target != "language":
            self.result.settings.append(Setting(item.key, item.value, item.file, item.line))

    def _custom_setting(self, item: Item, setting: Setting) -> None:
        option = self.table.find(setting.name)
        if option is None:
            if self.result.strict:
                raise fail(
                    item.file,
                    item.line,
                    "strict: %s stands for %s, which is no option",
                    display(item.key),
                    display(setting.name),
                )
            return
        if option.kind == "load" or logic.opens(setting.name):
            raise fail(
                item.file, item.line, "%s cannot stand for %s", display(item.key), setting.name
            )
        self.result.settings.append(setting)


def _check_text(key: str, value: str, file: str, line: int) -> None:
    """What escapes of YAML and JSON can write, and the operating system cannot take."""
    if "\0" in key or "\0" in value:
        raise fail(file, line, "%s holds a NUL character", display(key.replace("\0", "")))
    try:
        os.fsencode(key + value)
    except UnicodeEncodeError:
        raise fail(file, line, "a character that is none (half of a surrogate pair)") from None


# --- what options of the language do ---


def _set(reader: Reader, item: Item) -> None:
    name, equals, value = (item.value or "").partition("=")
    if not equals:
        raise fail(item.file, item.line, "%s: expected name=value", item.key)
    reader.setting += 1
    if reader.setting > MAX_DEPTH:
        raise fail(item.file, item.line, "set in set, %d deep", MAX_DEPTH)
    reader.add(name, value, item.file, item.line, placeholder=item.key != "set")
    reader.setting -= 1


def _strict(reader: Reader, item: Item) -> None:
    reader.result.strict = names.is_on(item.value)


def _blacklist(reader: Reader, item: Item) -> None:
    reader.blacklist = item.value or ""


def _whitelist(reader: Reader, item: Item) -> None:
    reader.whitelist = item.value or ""


def _end_blacklist(reader: Reader, _item: Item) -> None:
    reader.blacklist = None


def _end_whitelist(reader: Reader, _item: Item) -> None:
    reader.whitelist = None


def _declare(reader: Reader, item: Item) -> None:
    name, equals, template = (item.value or "").partition("=")
    if not equals or not name:
        raise fail(item.file, item.line, "%s: expected name=template", item.key)
    if reader.table.find(name):
        reader.notice(item.file, item.line, "%s is an option already" % display(name))
        return
    reader.custom.setdefault(name, Custom(name, template))


def _inject(reader: Reader, item: Item) -> None:
    reader.injected[item.key].append(item.value or "")


def _get(reader: Reader, item: Item) -> None:
    """Prints a value, and there is nothing to start then."""
    value = reader.value_of(item.value or "")
    if value is not None:
        reader.result.output.append(value)
    reader.result.exit_code = reader.result.exit_code or 0


def _print(reader: Reader, item: Item) -> None:
    if item.value is not None:
        reader.result.output.append(item.value)


def _exit(reader: Reader, item: Item) -> None:
    reader.result.exit_code = expand.integer(item.value or "0") & 0xFF
    reader.stopped = True


def _mode(reader: Reader, item: Item) -> None:
    reader.mode = item.value


def _early_env(reader: Reader, item: Item) -> None:
    name, equals, value = (item.value or "").partition("=")
    if name and equals:
        reader.environ[name] = value


def _env(reader: Reader, item: Item) -> None:
    _early_env(reader, item)


def _unenv(reader: Reader, item: Item) -> None:
    reader.environ.pop(item.value or "", None)


def _early_envdir(reader: Reader, item: Item) -> None:
    """A file a variable, as daemontools have it: the first line is the value, no line removes it."""
    folder = item.value or ""
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise fail(
            item.file, item.line, "%s: cannot read %s: %s", item.key, display(folder), error.strerror
        ) from None
    for entry in entries[:4096]:
        path = os.path.join(folder, entry)
        if entry.startswith(".") or "=" in entry or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            data = file.read(1 << 17)
        if not data:
            reader.environ.pop(entry, None)
            continue
        value = os.fsdecode(data.split(b"\n")[0].rstrip(b" \t\r").replace(b"\0", b"\n"))
        reader.environ[entry] = value
        reader.result.settings.append(
            Setting("env", "%s=%s" % (entry, value), item.file, item.line)
        )


def _resolve(reader: Reader, item: Item) -> None:
    name, equals, host = (item.value or "").partition("=")
    if not equals:
        raise fail(item.file, item.line, "resolve: expected placeholder=name")
    try:
        address = socket.gethostbyname(host)
    except (OSError, UnicodeError) as error:
        raise fail(item.file, item.line, "resolve: %s: %s", display(host), error) from None
    reader.add(name, address, item.file, item.line, placeholder=True)


def _plugins(reader: Reader, item: Item) -> None:
    for name in (item.value or "").split(","):
        reader.context.plugins.add(name.rpartition(":")[2].strip())


def _show_config(reader: Reader, item: Item) -> None:
    reader.result.show_config = names.is_on(item.value)


ACTIONS = {
    "set": _set,
    "set-ph": _set,
    "strict": _strict,
    "blacklist": _blacklist,
    "whitelist": _whitelist,
    "end-blacklist": _end_blacklist,
    "end-whitelist": _end_whitelist,
    "declare-option": _declare,
    "iprint": _print,
    "exit": _exit,
    "early-envdir": _early_envdir,
    "ienv": _early_env,
    "resolve": _resolve,
    "inject-before": _inject,
    "inject-after": _inject,
    "plugin": _plugins,
    "plugins": _plugins,
    "need-plugin": _plugins,
}

APPLIED = {
    "declare-option2": _declare,
    "print": _print,
    "get": _get,
    "mode": _mode,
    "env": _env,
    "unenv": _unenv,
    "early-envdir": _early_envdir,
    "show-config": _show_config,
}


def read(
    argv: list[str],
    environ,
    *,
    cwd: str | None = None,
    allow_exec: bool = False,
    stdin=None,
) -> Result:
    """What uWSGI would act upon, given these arguments (without the program's name) and this environment.

    Raises ConfigError, whose message begins with file and line, for what cannot be used. Commands (exec://) are
    run only with allow_exec.
    """
    reader = Reader(environ, cwd=cwd, allow_exec=allow_exec, stdin=stdin)
    _read_environ(reader, environ)
    options, arguments = commandline.split(argv, reader)
    for name, value in options:
        reader.add(name, value, COMMAND_LINE, 0)
    for argument in arguments:
        _argument(reader, argument)
    result = reader.finish()
    return result


def _read_environ(reader: Reader, environ) -> None:
    for variable, value in environ.items():
        if not variable.startswith("UWSGI_") or variable[6:] in NO_OPTIONS:
            continue
        reader.add(
            variable[6:].lower().replace("_", "-"), value, "environment %s" % variable, 0
        )


def _argument(reader: Reader, argument: str) -> None:
    """An argument without a dash: a file by its ending, or the application."""
    if argument.startswith("["):
        return
    item = Item("config", argument, COMMAND_LINE, 0, ())
    ending = formats.format_of(argument)
    if ending:
        first, reader.magic.first = reader.magic.first, True
        reader.load(argument, ending, item)
        reader.magic.first = first
    elif formats.format_of(source.split_section(argument)[0]):
        ending = formats.format_of(source.split_section(argument)[0])
        raise fail(
            COMMAND_LINE,
            0,
            "%s: a section is named with an option: --%s %s",
            argument,
            ending,
            argument,
        )
    elif argument.endswith((".py", ".wsgi")):
        reader.add("wsgi-file", argument, COMMAND_LINE, 0)
    elif ":" in argument or _is_module(argument):
        reader.add("module", argument, COMMAND_LINE, 0)
    else:
        raise fail(
            COMMAND_LINE,
            0,
            "%s: expected a file that ends in .ini, .yaml, .yml, .json, .xml or .py, or an "
            "application (module:callable)",
            display(argument),
        )


def _is_module(argument: str) -> bool:
    return all(part.isidentifier() for part in argument.split("."))


def show_config(result: Result) -> str:
    """As uWSGI's --show-config prints it."""
    lines = ["", ";uWSGI instance configuration", "[uwsgi]"]
    for setting in result.exported:
        lines.append("%s = %s" % (setting.name, "true" if setting.value is None else setting.value))
    lines += [";end of configuration", "", ""]
    return "\n".join(lines)


__all__ = ["ConfigError", "Item", "Reader", "Result", "Setting", "read", "show_config", "where"]
