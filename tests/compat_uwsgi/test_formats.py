"""YAML, JSON and XML, and files that are broken or hostile."""

import os
import random
import re

import pytest

from tests.compat_uwsgi.conftest import pairs, result


def test_yaml(conf):
    conf.write(
        "a.yaml",
        "# c\nother:\n  z: 1\nuwsgi:\n  threads: 2 # comment\n  str: \"q u\"\n  single: 'it''s'\n  list: [a, \"b,c\"]\n"
        "  block:\n    - x\n    - 'y'\n  t: true\n  empty:\n  n: %n\n  multi: |\n    l1\n    l2\n  url: http://x/#a\n"
        "  $(x): 1\n",
    )
    assert pairs(conf.read("--yaml", "a.yaml")) == [
        ("threads", "2"),
        ("str", "q u"),
        ("single", "it's"),
        ("list", "a"),
        ("list", "b,c"),
        ("block", "x"),
        ("block", "y"),
        ("t", "true"),
        ("n", "a"),
        ("multi", "l1\nl2\n"),
        ("url", "http://x/#a"),
        ("$(x)", "1"),
    ]
    assert conf.read("a.yaml").value("threads") == "2"
    assert conf.read("--yaml", "a.yaml:other").exported[-1].line == 3


@pytest.mark.parametrize(
    "text,line",
    [
        ("uwsgi:\n  a: &x 1\n", 2),
        ("uwsgi:\n  a: {b: 1}\n", 2),
        ("uwsgi:\n\ta: 1\n", 2),
        ("uwsgi:\n  a: [1, 2\n", 2),
        ('uwsgi:\n  a: "x\n', 2),
        ("uwsgi:\n  a: 1\n  nonsense\n", 3),
        ("uwsgi:\n  a: 1\n    b: 2\n", 3),
        ("uwsgi: 1\n", 1),
        ("uwsgi:\n  <<: *x\n", 2),
    ],
)
def test_yaml_beyond_the_subset_is_refused(conf, text, line):
    conf.write("a.yaml", text)
    message = conf.fails("--yaml", "a.yaml")
    assert message.startswith("a.yaml:%d: " % line), message


def test_json(conf):
    conf.write(
        "a.json",
        '{"uwsgi": {\n"threads": 2,\n"master": true,\n"env": ["A=1", "B=2"],\n"off": null, "neg": -1, "f": 1.5\n}}\n',
    )
    read = conf.read("--json", "a.json")
    assert pairs(read) == [
        ("threads", "2"),
        ("master", "1"),
        ("env", "A=1"),
        ("env", "B=2"),
        ("off", "0"),
        ("neg", "-1"),
        ("f", "1.5"),
    ]
    assert [setting.line for setting in read.settings] == [2, 3, 4, 4]
    conf.write("b.json", '{"uwsgi": {"a": 1,}}')
    assert conf.fails("b.json").startswith("b.json:1: not JSON")
    conf.write("c.json", "[" * 5000)
    assert conf.fails("c.json").startswith("c.json")


def test_xml(conf):
    conf.write(
        "a.xml",
        '<root><uwsgi id="one">\n <threads>2</threads>\n <master/>\n <!-- c -->\n <sp> a b </sp>\n'
        ' <amp>a &amp; b</amp>\n <app mountpoint="/x">mod</app>\n</uwsgi>\n<uwsgi id="two"><threads>9</threads></uwsgi>'
        "</root>\n",
    )
    assert pairs(conf.read("a.xml")) == [
        ("threads", "2"),
        ("master", "1"),
        ("sp", " a b "),
        ("amp", "a & b"),
        ("mount", "/x=mod"),
        ("app", ""),
    ]
    assert conf.read("-x", "a.xml:two").value("threads") == "9"
    conf.write("b.xml", "<uwsgi><a>1</uwsgi>")
    assert conf.fails("b.xml").startswith("b.xml:1: not XML")
    conf.write("c.xml", '<!DOCTYPE x [<!ENTITY a "aaaa">]>\n<uwsgi><a>&a;</a></uwsgi>')
    assert "entities" in conf.fails("c.xml")


@pytest.mark.parametrize(
    "name,data,expected",
    [
        ("nul.ini", b"[uwsgi]\na = 1\0\n", "nul.ini:2: a NUL byte"),
        ("bom.ini", b"\xef\xbb\xbf[uwsgi]\na = 1\n", "bom.ini:1: the file begins with a byte order"),
        ("utf16.ini", "[uwsgi]\n".encode("utf-16"), "utf16.ini:1: this is UTF-16"),
        ("latin.ini", b"[uwsgi]\n\na = \xe4\n", "latin.ini:3: byte 0xe4 is not UTF-8"),
        ("long.ini", b"[uwsgi]\na = " + b"x" * (1 << 20), "long.ini:2: a line of"),
        ("huge.ini", b"#" + b"\n" * (5 << 20), "huge.ini: more than"),
        ("a.yaml", b"uwsgi:\n  a: \0\n", "a.yaml:2: a NUL byte"),
        ("many.ini", b"[uwsgi]\n" + b"for-times = 99999999\na = 1\n", "many.ini:2: for-times"),
        ("grow.ini", b"[uwsgi]\n" + b"for-times = 20000\na=1\nb=1\nc=1\nd=1\ne=1\nf=1\n", "many"),
        ("deep.ini", b"[uwsgi]\n" + b"set=" * 5000 + b"a=1\n", "deep.ini:2: set in set"),
        ("wide.ini", b"[uwsgi]\nfor-times = 20000\na=" + b"x" * 60000 + b"\n", "wide.ini:3: the values"),
        ("twice.ini", b"[uwsgi]\na=" + b"x" * 60000 + b"\nb=" + b"%(a)" * 300 + b"\n", "twice.ini:3: 'b' contains"),
        ("half.json", b'{"uwsgi": {"a": "\\ud800"}}', "half.json:1: a character that is none"),
        ("zero.json", b'{"uwsgi": {"a": "\\u0000"}}', "zero.json:1: 'a' holds a NUL"),
        ("half.yaml", b'uwsgi:\n  a: "\\ud800"\n', "half.yaml:2: a character that is none"),
        ("zero.yaml", b'uwsgi:\n  a: "\\x00"\n', "zero.yaml:2: 'a' holds a NUL"),
        ("bad-re.ini", b"[uwsgi]\nif-hostname-match = (\na = 1\n", "bad-re.ini:2: "),
    ],
)
def test_hostile_files(conf, name, data, expected):
    conf.write(name, data)
    message = conf.fails(name)
    if expected != "many":
        assert message.startswith(expected), message


def test_a_directory_a_device_and_what_is_not_there(conf):
    os.mkdir("d.ini")
    assert "directory" in conf.fails("d.ini")
    assert "no regular file" in conf.fails("--ini", "/dev/zero")
    conf.write("uwsgi.ini", "[uwsgi]\n")
    assert "did you mean uwsgi.ini" in conf.fails("--ini", "uwgsi.ini")
    conf.write("a.ini", "[uwsgi]\n\nini = $(HOME)/x.ini\n")
    message = conf.fails("--ini", "a.ini")
    assert message.startswith("a.ini:3: cannot read") and "not expanded" in message


def test_a_file_beside_the_one_that_includes_it(conf):
    conf.write("d/a.ini", "[uwsgi]\nini = b.ini\n")
    conf.write("d/b.ini", "[uwsgi]\n")
    assert conf.fails("d/a.ini").endswith("beside this file it is %db.ini")


def test_deep_includes(conf):
    for number in range(40):
        conf.write("f%d.ini" % number, "[uwsgi]\nini = f%d.ini\n" % (number + 1))
    conf.write("f40.ini", "[uwsgi]\n")
    assert "deep" in conf.fails("--ini", "f0.ini")


@pytest.mark.parametrize("kind", ["ini", "yaml", "json", "xml"])
def test_any_bytes_are_read_or_refused(conf, kind):
    seeds = {
        "ini": b"[uwsgi]\nfor-times = 2\na = %(b) $(HOME) @(x)\nendfor\nset = b=c\n%n = %d\nif-env = HOME\nini = :o\n[o]\n",
        "yaml": b"uwsgi:\n  a: [b, \"c\"]\n  d:\n    - e\n    - 'f'\n  g: |\n    h\n  i: j # k\n",
        "json": b'{"uwsgi": {"a": ["b", 1, true, null], "c": "\\u0041"}}',
        "xml": b'<r><uwsgi id="x"><a>b</a><c/><app mountpoint="/">d</app></uwsgi></r>',
    }
    chance = random.Random(kind)
    read = 0
    for _ in range(150):
        data = bytearray(seeds[kind])
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(3)] = bytes(
                chance.choice(b"\n[]:-{}\"'%$@()=;# \t<>&/a\xe4\x00") for _ in range(chance.randrange(4))
            )
        conf.write("x." + kind, bytes(data))
        try:
            conf.read("--" + kind, "x." + kind)
            read += 1
        except result.ConfigError as error:
            assert re.match(r"(x\.\w+(:\d+)?|command line): ", str(error)), str(error)
    assert read > 0
