"""The same configurations read by uWSGI itself: --show-config must say the same, line by line."""

import os
import random
import re
import subprocess

import pytest

from tests.compat_uwsgi.conftest import language

# Each is a folder: names and contents, and the command lines to try in it.
CASES = {
    "ini": (
        {
            "a.b.ini": "# c %n\nstray = 1\n[uwsgi]\n  key1 =  v1 ; inline\nkey2=v2 # x\nbare\nempty =\nquoted = \"a b\"\n"
            "n = %n %N %d %D %p %P %s %S %e %o %O %c %C %x %X\nk = %k %u %U %g %G %v %h %j\nzero = %0 %1 %2 %3 %9\n"
            "esc = %[\nlit = %% %q|%(n) 100%\njoined = yes\nenv = A=$(HOME) $(NOPE)\n[other]\nz = 1 %x %X\n[uwsgi]\n"
            "again = 1\n [spaced] \nq = 1\n[ uwsgi ]\nno = 1\n[uwsgi\nno2 = 1\n[uwsgi] ; c\nno3 = 1\n",
            "sub/deep/c.ini": "[uwsgi]\na = %n %d %c %0 %p\n",
        },
        ["--ini a.b.ini", "a.b.ini", "--ini a.b.ini:other", "--ini a.b.ini:", "--ini ./sub/../sub/deep/c.ini"],
    ),
    "math": (
        {
            "a.ini": "[uwsgi]\nn1 = 4\nn2 = 3\nn1 = 9\na = %(n1 + 2) %(n1 n2) %(n1 ++) %(n1 -- ) %(n1 * n2)\n"
            "b = %(nope) %(nope + 1) %(n1 +2) %(n1+2) %(n1 - 7) %(n1 / 0) %(n1 * 2 + 1) %(-3 + 1)\n"
            "c = %(n1 n2 + 1 n2) %(a) %(7 / 2) %(n1 - 9 / 2)\nd = %(d)\ne = $(X%(f))\nf = Y\ng = %(h%(f))\nhY = deep\n"
            "i = x %(h%(f))\nj = $(HO$(M)E) $( HOME) %() $() @()\nk = %(bar\nl = a)b%(f)c%(f)\nm = %%(f)\n"
        },
        ["--ini a.ini"],
    ),
    "placeholders": (
        {
            "a.ini": "[uwsgi]\nset-placeholder = foo=$(HOME)\nset-ph = n=4\nset = foo2=$(HOME)\nset = threads=%(n)\n"
            "bar = %(foo)/x\nbar2 = %(foo2)/x\nat = @(word.txt)|@(two.txt)|@(empty.txt)|\n",
            "word.txt": "word\n",
            "two.txt": "a\nb\n\n",
            "empty.txt": "",
        },
        ["--ini a.ini", "--ini a.ini --set x=$(HOME) -S y=%(x) --set-ph z=1", "--set a=b=c"],
    ),
    "logic": (
        {
            "a.ini": "[uwsgi]\nf = $(HOME)\nafter = 1\nif-env = HOME\n a1 = %(_)\n a2 = yes\nendif =\nif-env = NOPE\n b1 = no\n"
            "endif\nif-not-env = NOPE\n b2 = %(_)\nendif\nif-env = HOME=/root\n b3 = yes\nendif\nif-opt = after\n b4 = %(_)\n"
            "endif\nif-opt = f=$(HOME)\n b5 = lit\nendif\nif-opt = f=/root\n b6 = exp\nendif\nfor = a b  c\n l = x%(_)\n"
            " m = %(_)%(_)\nendfor\nfor-times = 3\n w = %(_)\nendfor\nfor-glob = d/*\n g = %(_)\nendfor\n"
            "for-glob = nope*\n g2 = %(_)\nendfor\nfor-readline = lines.txt\n r = %(_)\nendfor\nif-exists = d\n e1 = %(_)\n"
            "endif\nif-file = d\n e2 = no\nendif\nif-dir = d\n e3 = %(_)\nendif\nifdir = d\n e4 = %(_)\nendif\n"
            "if-not-exists = nope\n e5 = %(_)\nendif\nif-hostname = nohost\n h1 = %(_)\nendif\nif-not-hostname = nohost\n"
            " h2 = %(_)\nendif\nif-plugin = nonsense\n p1 = 1\nendif\nif-not-plugin = nonsense\n p2 = %(_)\nendif\n"
            "if-reload\n r1 = 1\nendif\nif-not-reload\n r2 = 1\nendif\nend\nfor-times = -1\n n = 1\nendfor\nfor = x y\n"
            " ini = sub.ini\nendfor\nzz = 1\n",
            "sub.ini": "[uwsgi]\nsub = %n %N\n",
            "lines.txt": "one\ntwo  \r\n\nlast",
            "d/b.txt": "",
            "d/a.txt": "",
            "d/B/x": "",
        },
        ["--ini a.ini", "a.ini"],
    ),
    "open block": (
        {"a.ini": "[uwsgi]\nif-env = NOPE\na = 1\n", "b.ini": "[uwsgi]\nb = 1\nendif\nc = 1\n"},
        ["--ini a.ini --ini b.ini", "--ini a.ini --threads 2 b.ini"],
    ),
    "includes": (
        {
            "a.ini": "[uwsgi]\nx = %x\nini = :other\ny = %x\ninclude = sub.ini\ninherit = inh.ini\nini = :last\nafter = 1\n"
            "[other]\noth = %x %n %X\n",
            "sub.ini": "[uwsgi]\nsub = %n %N %d %x $(HOME)\n[last]\nl = %n %p %o|\n",
            "inh.ini": "[uwsgi]\ninh = %n %N $(HOME) %(after)\nthreads = 2\ninherit = inh2.ini\n",
            "inh2.ini": "[uwsgi]\ninh2 = 1\n",
        },
        ["--ini a.ini", "a.ini", "--ini a.ini:other", "--include a.ini", "--ini sub.ini --ini :last"],
    ),
    "command line": (
        {"b.yml": "uwsgi:\n  threads: 2\n", "a.ini": "[uwsgi]\nx = 1\n"},
        [
            "-p 4 -s :0 -M -C -C664 -l 10 -iT",
            "-p4 --workers=3 --enable-thr",
            "--workers 3 b.yml --threads 2",
            "a.ini b.yml --threads 9",
            "-y b.yml --chmod-socket=666 --chmod-socket",
        ],
    ),
    "environment": ({"a.ini": "[uwsgi]\nx = 1 %N\n"}, ["--threads 2", "a.ini"]),
    "custom": (
        {
            "a.ini": "[uwsgi]\ndeclare-option = mya=threads=$1;listen=$2\nmya = 3 4\ndeclare-option2 = myb=listen=$1\nmyb = 5\n"
            "blacklist = reaper\nlisten = 3\nend-blacklist =\nreaper = true\n"
        },
        ["--ini a.ini"],
    ),
    "yaml": (
        {
            "a.yaml": "# c\nother:\n  z: 1\nuwsgi:\n  threads: 2 # cc\n  str: \"q u\"\n  single: 'it''s'\n  list: [a, b]\n"
            "  blist:\n    - x\n    - y\n  map:\n    A: 1\n  t: true\n  emp:\n  n: %n\n  pct: a%%b\n  o: 010\n"
            "  url: http://h/#x\n  folded: a\n    b c\n  last: $(HOME)\n",
            "b.yml": "uwsgi:\n  list:\n  - a\n  - b\n  t: yes\n",
        },
        ["--yaml a.yaml", "a.yaml", "b.yml", "--yml b.yml:uwsgi", "--yaml b.yml:nope"],
    ),
    "xml": (
        {
            "a.xml": '<root><uwsgi id="one">\n <threads>2</threads>\n <bare/>\n <!-- c -->\n <sp> a b </sp>\n <n>%n</n>\n'
            ' <amp>a &amp; b</amp>\n <mix>a<b>c</b>d</mix>\n <app mountpoint="/x">mod</app>\n <app/>\n</uwsgi>\n'
            '<uwsgi id="two"><threads>9</threads></uwsgi></root>\n',
            "c.xml": "<uwsgi><a><![CDATA[x & y]]></a><b>x<!-- c -->y</b><c>\n multi\n</c><d id='z'>1</d><e id='y'>2</e>text"
            "<f></f><?pi x?><g> </g><![CDATA[import x]]><app>m</app><app mountpoint='/a'><module>x</module></app>"
            "<app domain='d'>y</app></uwsgi>",
            "b.xml": "<uwsgi><threads>1</threads><a>$(HOME)</a></uwsgi>",
        },
        ["--xml a.xml", "-x a.xml:two", "a.xml", "b.xml", "c.xml", "--xml c.xml:z"],
    ),
    "json": (
        {
            "a.json": '{"uwsgi": {"threads": 2, "a": "b", "t": true, "f": false, "l": ["x", 1]}}',
            "b.json": '{"uwsgi":{"a":1,"a":2,"d":[1,[2],{"y":1},null],"e":99999999999,"f":"","g":-5,"u":"\\u00e4%n"}}',
        },
        ["--json a.json", "a.json", "-j a.json", "b.json"],
    ),
    "injected": (
        {
            "before.txt": "[uwsgi]\na=%n\n",
            "after.txt": "z=%n\n",
            "a.ini": "m = %n",
            "b.ini": "[uwsgi]\nini = c.ini\nm = 1\n",
            "c.ini": "[uwsgi]\ns = %n\n",
        },
        [
            "--inject-before before.txt --inject-after after.txt --ini a.ini",
            "--inject-before before.txt --inject-before after.txt --ini b.ini",
            "--inject-after after.txt b.ini",
        ],
    ),
    "line ends": (
        {"crlf.ini": "[uwsgi]\r\na = 1\r\nb\r\n", "no.ini": "[uwsgi]\na = 1", "keys.ini": "[uwsgi]\n= 1\nfoo bar = 2\n"
            "k==v\n\ttab\t=\tv\t\n%(x) = 3\nd%n = 3\n"},
        ["crlf.ini", "no.ini", "keys.ini"],
    ),
}

ENVIRONMENT = {"HOME": "/root", "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C"}
EXTRA = {"environment": {"UWSGI_LISTEN": "5", "UWSGI_FOO_BAR": "a$(HOME)", "UWSGI_INI": "a.ini"}}
COMMANDS = [(case, command) for case, (_, commands) in CASES.items() for command in commands]
STOP = ["--show-config", "--hook-pre-jail", "exit:0"]


def configuration(text):
    """The lines between the marks of --show-config."""
    match = re.search(r"^;uWSGI instance configuration\n(.*?)^;end of configuration$", text, re.S | re.M)
    return match.group(1).splitlines() if match else None


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


@pytest.mark.parametrize("case,command", COMMANDS, ids=["%s: %s" % pair for pair in COMMANDS])
def test_show_config_is_the_same(case, command, uwsgi, needs, tmp_path, monkeypatch):
    for kind in ("yaml", "xml", "json"):
        if re.search(r"\.%s\b" % kind.replace("yaml", "ya?ml"), command):
            needs(kind)
    write(tmp_path, CASES[case][0])
    monkeypatch.chdir(tmp_path)
    environ = dict(ENVIRONMENT, **EXTRA.get(case, {}))
    arguments = STOP + command.split()
    done = subprocess.run(
        [uwsgi] + arguments,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    output = done.stdout.decode()
    theirs = configuration(output)
    assert theirs is not None, output
    assert done.returncode == 0, output
    ours = configuration(language.show_config(language.read(arguments, environ)))
    assert ours == theirs


SEEDS = range(60)
KEYS = ["a", "b", "c", "d", "threads", "x y", "master", "%n", "env", "set", "set-ph", "listen"]
PIECES = (
    "%(a)|%(b)|$(HOME)|$(E1)|$(NO)|@(l.txt)|%n|%N|%%|%(|$(|@(|)|(|%d|%x|%0| |  |1|x|=|;|#|%(a + 1)|%(b a)|%(a ++)|"
    "%(a * 3 - b)|%(_)|$(%(a))|%($(E1))|%q|[|]|\"|\t|%(c%(d))|%c|%e|%1%2|%%(a)|%%%(b)"
).split("|")
BLOCKS = (
    "if-env = HOME|if-env = NO|if-not-env = NO|if-env = E1=v1|for = a b|for-times = 2|for-glob = sub/*|"
    "for-readline = l.txt|if-opt = a|if-opt = b=1|if-not-opt = c|if-exists = l.txt|if-file = sub|if-dir = sub|"
    "if-not-dir = l.txt|if-reload|if-not-reload"
).split("|")
OTHERS = (
    "ini = sub/s.ini|ini = sub/s.ini:o|include = sub/s.ini|inherit = inh.ini|ini = :o|; c %n|# c||[o]|[uwsgi]|[ uwsgi ]|"
    "[uwsgi|  [uwsgi]  "
).split("|")
FILES = {
    "l.txt": "one\ntwo $(HOME)\n\n",
    "sub/s.ini": "[uwsgi]\ns=%n %N %x\n[o]\ns2=%d%x\nini = :uwsgi\n",
    "inh.ini": "[uwsgi]\ni = %(a) %n\nprocesses=3\n",
}


def invented(chance):
    """The text of a configuration of all that the language has."""
    lines = ["[uwsgi]"]
    inside = False
    for _ in range(chance.randrange(1, 14)):
        kind = chance.random()
        if kind < 0.12 and not inside:
            lines.append(chance.choice(BLOCKS))
            inside = True
        elif kind < 0.25 and inside:
            lines.append(chance.choice(["endif", "endif =", "end", "endfor", "end-if = 1"]))
            inside = False
        elif kind < 0.3:
            lines.append(chance.choice(OTHERS))
        else:
            key = chance.choice(KEYS)
            value = "".join(chance.choice(PIECES) for _ in range(chance.randrange(5)))
            if key.startswith("set") or key == "env":
                value = "P%d=%s" % (chance.randrange(3), value)
            if key == "listen":
                value = "10"
            equals = chance.choice(["=", " = ", " =", "= "])
            lines.append(chance.choice(["", " ", "\t"]) + key + equals + value + chance.choice(["", " ", "\t", "\r"]))
    return "\n".join(lines) + chance.choice(["\n", ""])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_invented_configuration_is_read_the_same(seed, uwsgi, tmp_path, monkeypatch):
    chance = random.Random(seed)
    text = invented(chance)
    write(tmp_path, dict(FILES, **{"f.ini": text}))
    monkeypatch.chdir(tmp_path)
    environ = dict(ENVIRONMENT, E1="v1")
    files = [["--ini", "f.ini"], ["f.ini"], ["--ini", "f.ini", "--set", "q=%(a)"]]
    arguments = STOP + chance.choice(files)
    try:
        ours = configuration(language.show_config(language.read(arguments, environ)))
    except language.ConfigError as error:
        if "contains itself" in str(error):
            return  # uWSGI does not end, and takes all memory meanwhile
        ours = str(error)
    done = subprocess.run(
        [uwsgi] + arguments,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    theirs = configuration(done.stdout.decode()) if done.returncode == 0 else None
    if isinstance(ours, str):
        assert theirs is None, "%s\n%s" % (ours, text)
        return
    assert theirs is not None, done.stdout.decode() + text
    assert ours == theirs, text
