"""The table of options: well-formed, and complete."""

import importlib
import subprocess
from pathlib import Path

from tests.compat_uwsgi import conftest

names = importlib.import_module("compat_sources.names")
TABLE = names.table()


def test_every_name_of_uwsgi_is_there_once():
    listed = (conftest.ROOT / "tests/unit/config/uwsgi_options.txt").read_text().split()
    assert sorted(TABLE.names) == sorted(listed)


def test_rows_say_what_they_may():
    kinds = set(
        "flag int rawint int64 int16 megabytes string list route logic load deprecated other".split()
    )
    for row in TABLE.rows:
        assert row.kind in kinds, row
        assert row.fate in names.FATES + ("",), row
        assert bool(row.target) <= bool(row.fate), row
        assert not row.note.endswith("."), row


def test_uwsgi_has_no_others(uwsgi):
    options = subprocess.run(
        [uwsgi, "--dump-options"], capture_output=True, text=True, timeout=60
    ).stdout.split()
    unknown = [name for name in options if name not in TABLE.names]
    # The test knows the released line; a newer or patched uWSGI may have a few more.
    assert len(options) > 500 and len(unknown) < 10, unknown


def test_letters(uwsgi):
    text = subprocess.run([uwsgi, "--help"], capture_output=True, text=True, timeout=60).stdout
    first = {}
    for line in text.splitlines():
        letter, bar, name = line.strip().partition("|--")
        if bar and len(letter) == 2:
            first.setdefault(letter[1], name.split()[0])
    assert len(first) > 15
    for letter, name in first.items():
        if letter != "h":
            assert TABLE.letter_name(letter) in TABLE.find(name).names
            assert TABLE.letters[letter].argument in names.ARGUMENTS
    assert {letter: TABLE.letter_name(letter) for letter in first if letter != "h"} == {
        letter: name for letter, name in first.items() if letter != "h"
    }


def test_nearest_name():
    assert TABLE.nearest("vaccum") == "vacuum"
    assert TABLE.nearest("touch_reload") == "touch-reload"
    assert TABLE.nearest("chmod-sock") == "chmod-socket"
    for word in "base project domain username appname app_name root_dir venv_path port name".split():
        assert TABLE.nearest(word) is None, (word, TABLE.nearest(word))


def test_values_as_uwsgi_takes_them():
    assert [names.number(v) for v in ("60 ; x", " 7", "-3", "x", "", None, "+2a")] == [60, 7, -3, 0, 0, 1, 2]
    assert [names.is_on(v) for v in (None, "", "true", "1", "yes", "false ; x", "00")] == [True] * 7
    assert [names.is_on(v) for v in ("false", "FALSE", "off", "no", "0")] == [False] * 5


def test_a_broken_row_is_named(tmp_path):
    path = Path(tmp_path / "t.tsv")
    path.write_text("a\t-\tnone\tflag\t-\tcore\t-\t-\t-\n")
    try:
        names.read_rows(str(path))
    except ValueError as error:
        assert str(error) == "%s:1: 9 columns" % path
    else:
        raise AssertionError("taken")
