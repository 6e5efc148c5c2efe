"""Where uWSGI does something else than was meant: same value, and a warning with file and line."""

import pytest

TRAPS = [
    ("harakiri = 60 ; a minute\nmaster = true # x\nthreads = 2\t; y\n", 2, "(lines 2, 3, 4)"),
    ("harakiri = 1 minute ; or so\n", 2, "uWSGI reads 1; '1 minute' was meant?"),
    ("harakiri = 1h\n", 2, "'1h' is no number: uWSGI reads 1; 3600 was meant?"),
    ("processes = many\n", 2, "'many' is no number: uWSGI reads 0"),
    ('env = "A=b"\n', 2, "quotes are part"),
    ("for = %(list)\nsocket = %(_)\nendfor\n", 2, "acts while it is read"),
    ("cron = 1 1 1 1 1 echo $(NOPE) $(date)\n", 2, "variable 'NOPE' is not set"),
    ("master = false ; not now\n", 2, "although false"),
    ("logto = /tmp/x.log # here\n", 2, "/tmp/x.log # here"),
    ("chdir = $(NOPE)/x\n", 2, "variable 'NOPE' is not set"),
    ("chdir = %(nope)/x\n", 2, "there is no 'nope'"),
    ("vaccum = true\n", 2, "did you mean vacuum?"),
    ("touch_reload = x\n", 2, "did you mean touch-reload?"),
    ('module = "app"\n', 2, "quotes are part"),
    ("\n\nprocesses\n", 4, "needs a value"),
    ("x = 1\ny = 50%\nz = 1\n", 3, "joins the next line"),
    ("log-date = %Y\n", 2, "%Y is no magic variable"),
    ("[uwsgi] ; mine\nx = 1\n", 2, "part of the name"),
    ("[ other ]\n", 2, "spaces are part"),
    ("if-env = HOME\nx = 1\n", 2, "is not ended"),
    ("endif =\n", 2, "ends nothing"),
    ("if-env = HOME\nx = 1\nelse =\ny = 1\nendif\n", 4, "no else"),
    ("if-env = NO\nif-env = HOME\nx = 1\nendif\nendif\n", 3, "dropped with the rest"),
    ("set-ph = a=$(HOME)\nb = %(a)\n", 2, "expands nothing"),
]


@pytest.mark.parametrize("text,line,expected", TRAPS)
def test_a_trap_is_named(conf, text, line, expected):
    read = conf.read(text)
    found = [str(warning) for warning in read.warnings]
    assert any(
        warning.startswith("app.ini:%d: " % line) and expected in warning for warning in found
    ), found


CLEAN = [
    "add-header = Cache-Control: a; b\n",
    "log-format = %%(addr) ; %%(method) # %%(uri)\n",
    "route = ^/a addheader:X: #1\n",
    "base = /srv\nproject = x\nchdir = %(base)/%(project)\n",
    "attach-daemon = a ; b\n",
    "hook-post-app = exec:echo $(date)\n",
    "static-map = /x=/y#z\n",
    "logto = %(x)\nx = 1\n",
    "master\n",
    "if-env = HOME\nprocesses = 2\nendif\n",
]


@pytest.mark.parametrize("text", CLEAN)
def test_what_is_meant_is_not_warned_of(conf, text):
    assert [str(warning) for warning in conf.read(text).warnings] == []


def test_missing_sections(conf):
    conf.write("a.ini", "[uwsg]\nmaster = true\n")
    assert "there is no section 'uwsgi'; the file has 'uwsg'" in str(conf.read("a.ini").warnings[0])
    conf.write("b.ini", "x = 1\n[uwsgi]\ny = 1\n")
    assert "before the first section" in str(conf.read("b.ini").warnings[0])
