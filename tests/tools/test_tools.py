"""The checks of tools/ find what they are for."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path):
    """A tree of two layers with the tools in it."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in ("sizes.allow", "globals.allow"):
        (tmp_path / "tools" / name).write_text("")
    (tmp_path / "CONTRIBUTING.md").write_text(
        "| 0 | `src/base` | low |\n| 1 | `src/wire` | high |\n| 1 | `src/net` | high |\n"
    )
    for folder in ("base", "wire", "net"):
        (tmp_path / "src" / folder).mkdir(parents=True)
    (tmp_path / "src/base/low.h").write_text("#pragma once\nint stk_low(void);\n")
    (tmp_path / "src/wire/high.h").write_text('#pragma once\n#include "base/low.h"\n')
    return tmp_path


def run(tree, tool, *arguments):
    result = subprocess.run(
        [sys.executable, str(tree / "tools" / tool), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return result.returncode, result.stdout


def test_layers(tree):
    assert run(tree, "check_layers")[0] == 0
    (tree / "src/base/low.c").write_text('#include <stdio.h>\n#include "wire/high.h"\n')
    (tree / "src/net/peer.c").write_text('#include "wire/high.h"\n#include <Python.h>\n')
    code, output = run(tree, "check_layers")
    assert code == 1
    assert "src/base/low.c:2: base (layer 0) may not include wire/high.h (layer 1)" in output
    assert "src/net/peer.c:1: net (layer 1) may not include wire/high.h (layer 1)" in output
    assert "src/net/peer.c:2: Python.h belongs in pyhost or cli only" in output


def test_sizes(tree):
    if shutil.which("pmccabe") is None:
        pytest.skip("pmccabe is not installed")
    long = "int stk_long(int a)\n{\n" + "    a++;\n" * 70 + "    return a;\n}\n"
    tangled = "int stk_tangled(int a)\n{\n" + "    a += a ? 1 : 2;\n" * 30 + "    return a;\n}\n"
    (tree / "src/base/low.c").write_text(long + tangled)
    code, output = run(tree, "check_sizes")
    assert code == 1
    assert "stk_long: 74 lines, 60 are allowed" in output
    assert "stk_tangled: complexity 31, 25 is allowed" in output
    allow = tree / "tools" / "sizes.allow"
    allow.write_text("src/base/low.c:stk_long: why\nsrc/base/low.c:stk_tangled: why\n")
    assert run(tree, "check_sizes")[0] == 0
    (tree / "src/base/low.c").write_text("int stk_short;\n" * 801)
    code, output = run(tree, "check_sizes")
    assert code == 1
    assert "src/base/low.c: 801 lines" in output and "is within the sizes: remove it" in output


def test_symbols(tree):
    if shutil.which("cc") is None:
        pytest.skip("there is no compiler")
    source = tree / "src/base/low.c"
    source.write_text(
        "extern int Py_IsInitialized(void);\n"
        "static int counter;\nstatic const char *const table[] = {\"a\", \"b\"};\n"
        "int helper(void) { return ++counter + table[counter & 1][0] + Py_IsInitialized(); }\n"
        "int stk_low(void) { static int calls; return ++calls; }\n"
    )
    objects = tree / "build" / "libstoker-core.a.p"
    objects.mkdir(parents=True)
    command = ["cc", "-O0", "-fPIC", "-c", str(source), "-o", str(objects / "src_base_low.c.o")]
    subprocess.run(command, check=True)
    code, output = run(tree, "check_names", str(tree / "build"))
    assert code == 1
    assert "src/base/low.c: helper is exported" in output and "stk_low is" not in output
    assert "src/base/low.c: needs Py_IsInitialized" in output
    code, output = run(tree, "check_globals", str(tree / "build"))
    assert code == 1
    assert "counter is a mutable" in output and "calls is a mutable" in output
    assert ": table is" not in output
    allow = tree / "tools" / "globals.allow"
    allow.write_text("counter: why\nlow.c:calls: why\n")
    assert run(tree, "check_globals", str(tree / "build"))[0] == 0
    allow.write_text("counter: why\nlow.c:calls: why\nnothing: why\n")
    code, output = run(tree, "check_globals", str(tree / "build"))
    assert code == 1 and "there is no nothing" in output


def test_headers(tree):
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    assert run(tree, "check_headers")[0] == 0
    (tree / "src/net/peer.h").write_text("#pragma once\nsize_t stk_peer(void);\n")
    code, output = run(tree, "check_headers")
    assert code == 1 and "src/net/peer.h does not compile alone" in output


def test_words(tree):
    def git(*arguments):
        subprocess.run(["git", "-C", str(tree), *arguments], check=True, stdout=subprocess.DEVNULL)

    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git("init", "-q")
    git("add", ".")
    assert run(tree, "check_words")[0] == 0
    note = "TO" + "DO"
    (tree / "src/base/low.c").write_text("/* %s: later */\n/* /ro%s/x */\n" % (note, "ot"))
    git("add", ".")
    code, output = run(tree, "check_words")
    assert code == 1
    assert "src/base/low.c:1: '%s'" % note in output and "src/base/low.c:2: " in output


@pytest.mark.parametrize(
    "log, counts",
    [
        ("3 passed in 0.12s\n", "3 0 0 0"),
        ("== 1 failed, 2 passed, 4 skipped, 1 error in 61.20s (0:01:01) ==\n", "2 2 4 0"),
        ("Ok:                 5   \nFail:               1   \nTimeout:  2\nSkipped: 3\n", "5 3 3 0"),
        ("all is well\n", "0 0 0 0"),
        (
            "1 failed, 2 passed, 1 error in 9.1s\n    | 1 passed in 0.1s\n"
            "FLAKY: test_a.py::test_b[: x]: failed 2 times, then passed\n",
            "2 0 0 1",
        ),
        ("2 failed in 9.1s\nFLAKY: a::b: failed, then passed\nFAILED TWICE: a::c: failed\n", "0 1 0 1"),
    ],
)
def test_count_results(tmp_path, log, counts):
    path = tmp_path / "log"
    path.write_text(log)
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "count_results"), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == counts


FLAKY_TESTS = """
    import pathlib
    import pytest

    @pytest.fixture
    def clean_up(request):
        yield
        assert "first" not in request.node.name or not first("clean up")

    def first(name):
        path = pathlib.Path(__file__).with_name(name)
        there = path.exists()
        path.touch()
        return not there

    def test_good(): pass

    def test_first(clean_up): assert not first("the test")

    @pytest.mark.parametrize("value", ["a b", "c::d"])
    def test_parameter(value): assert value == "a b" or not first("parameter")
"""


def run_twice(tmp_path, more=""):
    """A run of tests, and what rerun_failed makes of it."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_some.py").write_text(textwrap.dedent(FLAKY_TESTS + more))
    failed = tmp_path / "failed"
    env = dict(os.environ, STOKER_TEST_FAILED=str(failed), PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    first = subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    assert first.returncode in (1, 2)
    again = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "rerun_failed"), "pytest", str(failed), *command],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "log"
    log.write_text(first.stdout + again.stdout)
    counts = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "count_results"), str(log)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return again.returncode, again.stdout, counts.stdout.strip()


def test_what_fails_once_is_flaky(tmp_path):
    code, output, counts = run_twice(tmp_path)
    assert code == 0 and counts == "2 0 0 2", output
    assert "FLAKY: test_some.py::test_first: failed 2 times, then passed\n" in output
    assert "FLAKY: test_some.py::test_parameter[c::d]: failed, then passed\n" in output


def test_what_fails_twice_has_failed(tmp_path):
    code, output, counts = run_twice(tmp_path, "\n    def test_bad(): assert False\n")
    assert code == 1 and counts == "2 1 0 2", output
    assert "FAILED TWICE: test_some.py::test_bad: failed, then failed again\n" in output


def test_many_failures_are_not_run_again(tmp_path):
    more = "".join("\n    def test_bad%d(): assert False\n" % number for number in range(2))
    code, output, counts = run_twice(tmp_path, more)
    assert code == 1 and output.startswith("nothing is run again: 4 failed") and counts == "2 5 0 0"


def test_a_file_that_cannot_be_loaded_is_not_run_again(tmp_path):
    code, output, counts = run_twice(tmp_path, "\n    import no_such_module_is_there\n")
    assert code == 1 and output.startswith("nothing is run again: 1 failed") and counts == "0 1 0 0"


def test_failures_of_meson(tmp_path):
    logs = tmp_path / "meson-logs"
    logs.mkdir()
    tests = [("stoker:unit / base/list", "OK"), ("stoker:unit / a name / of words", "FAIL")]
    (logs / "testlog.json").write_text(
        "".join(json.dumps({"name": name, "result": result}) + "\n" for name, result in tests)
    )
    code, output = run(ROOT, "rerun_failed", "meson", str(tmp_path), "echo", "meson test")
    assert code == 0
    assert output == (
        "== again, alone: a name / of words\n    | meson test a name / of words\n"
        "FLAKY: a name / of words: failed, then passed\n"
    )


def test_bootstrap_needs_no_network_to_refuse(tmp_path):
    """An interpreter that is too old or absent is one sentence."""
    environment = dict(os.environ, PYTHON="python-that-is-not-there")
    result = subprocess.run(
        ["bash", str(ROOT / "tools" / "bootstrap"), "venv"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 1
    assert result.stdout == (
        "bootstrap: there is no python-that-is-not-there: install Python 3.9 or later\n"
    )
