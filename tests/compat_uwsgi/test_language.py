"""The language by what comes out of it; test_oracle.py asks uWSGI itself."""

from tests.compat_uwsgi.conftest import pairs


def test_ini_has_no_comments_behind_values_and_no_quotes(conf):
    read = conf.read('# comment\n ; another\n  key =  a b \nother="x"\nbare\nempty =\nk==v\n')
    assert pairs(read) == [
        ("key", "a b"),
        ("other", '"x"'),
        ("bare", ""),
        ("empty", ""),
        ("k", "=v"),
    ]


def test_sections_repeat_and_others_are_left_out(conf):
    conf.write("app.ini", "stray = 1\n[uwsgi]\na = 1\n[other]\nb = 2\n[uwsgi]\nc = 3\n")
    assert pairs(conf.read("--ini", "app.ini")) == [("a", "1"), ("c", "3")]
    assert pairs(conf.read("--ini", "app.ini:other")) == [("b", "2")]
    assert pairs(conf.read("app.ini")) == [("a", "1"), ("c", "3")]


def test_environment_then_command_line_then_files(conf):
    conf.write("app.ini", "[uwsgi]\nprocesses = 4\n")
    conf.environ.update(UWSGI_PROCESSES="2", UWSGI_RELOADS="1", UWSGI_FOO_BAR="x")
    read = conf.read("app.ini", "--processes", "3")
    assert [(s.name, s.value, s.file, s.line) for s in read.settings] == [
        ("processes", "2", "environment UWSGI_PROCESSES", 0),
        ("processes", "3", "command line", 0),
        ("processes", "4", "app.ini", 2),
    ]
    assert read.value("processes") == "4"
    assert ("foo-bar", "x") in pairs(read)


def test_letters_and_names_cut_short(conf):
    read = conf.read("-p4", "-M", "-C", "-C664", "-s", ":3031", "-iT", "--wsgi", "a:b", "--enable-thr")
    assert pairs(read) == [
        ("processes", "4"),
        ("master", None),
        ("chmod-socket", None),
        ("chmod-socket", "664"),
        ("socket", ":3031"),
        ("single-interpreter", None),
        ("enable-threads", None),
        ("wsgi", "a:b"),
        ("enable-threads", None),
    ]
    assert "--threds" in conf.fails("--threds", "2") and "threads" in conf.fails("--threds", "2")
    assert "is not clear" in conf.fails("--wor", "2")
    assert "takes no value" in conf.fails("--master=1")
    assert "expected a value" in conf.fails("--processes")
    assert "expected a value" in conf.fails("-p")


def test_arguments_without_a_dash(conf):
    assert pairs(conf.read("app.py")) == [("wsgi-file", "app.py")]
    assert pairs(conf.read("pkg.mod:app")) == [("module", "pkg.mod:app")]
    assert "app.ini:x" in conf.fails("app.ini:x")


def test_placeholders_and_arithmetic(conf):
    read = conf.read(
        "n = 4\nm = 3\nn = 9\na = %(n + 2)\nb = %(n m)\nc = %(n ++)\nd = %(n m * 2 + 1)\n"
        "e = %(n / 0)\nf = %(nope)\ng = %(nope + 1)\nh = %(n - m -m)\ni = %(n+2)\nj = %(b) %(j1)\n"
        "j1 = x\n"
    )
    found = dict(pairs(read))
    assert found["a"] == "6" and found["b"] == "43" and found["c"] == "5"
    assert found["d"] == "87" and found["e"] == "0" and found["f"] == "%(nope)"
    assert found["g"] == "1" and found["i"] == "%(n+2)" and found["j"] == "43 x"


def test_passes_in_order(conf):
    conf.write("word.txt", "one\n")
    conf.environ["W"] = "word.txt"
    read = conf.read(
        "a = $(HOME)/x $(NOPE)\nb = @(word.txt)!\nset-ph = c=$(HOME)\nd = %(c)\nset = e=$(HOME)\nf = %(e)\n"
        "g = @($(W))\n"
    )
    found = dict(pairs(read))
    assert found["a"] == "/somewhere/x $(NOPE)"
    assert found["b"] == "one!"
    assert found["c"] == "$(HOME)" and found["d"] == "$(HOME)"
    assert found["e"] == "/somewhere" and found["f"] == "/somewhere"
    assert found["g"] == "one"


def test_magic_variables(conf):
    conf.write("sub/name.x.ini", "[uwsgi]\nv = %n|%e|%s|%c|%d|%p|%o|%x|%N|%%|%[\n[s]\nw = %x %X\n")
    folder = str(conf.folder)
    found = dict(pairs(conf.read("--ini", "sub/name.x.ini")))
    assert found["v"] == "name.x|ini|name.x.ini|sub|%s/sub/|%s/sub/name.x.ini|sub/name.x.ini||name.x|%%|\033" % (
        folder,
        folder,
    )
    assert dict(pairs(conf.read("--ini", "sub/name.x.ini:s")))["w"] == "s s"
    assert dict(pairs(conf.read("sub/name.x.ini")))["v"].split("|")[8] == ""


def test_capital_letters_are_of_the_first_file(conf):
    conf.write("one.ini", "[uwsgi]\nini = two.ini\n")
    conf.write("two.ini", "[uwsgi]\na = %n %N\n")
    assert pairs(conf.read("--ini", "one.ini")) == [("a", "two one")]


def test_conditions_and_loops(conf):
    conf.write("lines.txt", "one\ntwo  \r\n\nlast")
    conf.write("d/a.txt", "")
    conf.write("d/b.txt", "")
    conf.write("d/sub/x", "")
    read = conf.read(
        "if-env = HOME\na = %(_)\nendif =\nif-env = HOME=/no\nb = 1\nendif\nif-not-env = NOPE\nc = 1\nendif\n"
        "for = x y  z\nd = %(_)%(_)\ne = %(_)\nendfor =\nfor-times = 2\nf = %(_)\nendfor\n"
        "for-glob = d/*\ng = %(_)\nendfor\nfor-glob = no*\nh = %(_)\nendfor\nfor-readline = lines.txt\ni = %(_)\n"
        "endfor\nif-opt = a=%(_)\nj = 1\nend\nif-file = d\nk = 1\nendif\nif-dir = d\nl = %(_)\nendif\n"
        "if-not-exists = nope\nm = %(_)\nendif\nif-reload =\nn = 1\nendif\nif-not-reload\no = 1\nendif\n"
    )
    words = ("if", "end", "for")
    assert [pair for pair in pairs(read) if not pair[0].startswith(words)] == [
        ("a", "/somewhere"),
        ("c", "1"),
        ("d", "xx"),
        ("d", "yy"),
        ("d", "zz"),
        ("e", "x"),
        ("e", "y"),
        ("e", "z"),
        ("f", "1"),
        ("f", "2"),
        ("g", "d/a.txt"),
        ("g", "d/b.txt"),
        ("g", "d/sub/"),
        ("h", "no*"),
        ("i", "one"),
        ("i", "two  "),
        ("i", ""),
        ("i", "last"),
        ("l", "d"),
        ("m", "nope"),
        ("o", "1"),
    ]


def test_custom_options(conf):
    read = conf.read("declare-option = size=processes=$1;threads=$2\nsize = 3 4\nsize = 5\n")
    assert [(s.name, s.value, s.line) for s in read.settings] == [
        ("processes", "3", 3),
        ("threads", "4", 3),
        ("processes", "5", 4),
        ("threads", "$2", 4),
    ]


def test_inherit_comes_last_and_unexpanded(conf):
    conf.write("base.ini", "[uwsgi]\nprocesses = %(n)\nx = $(HOME)\n")
    read = conf.read("inherit = base.ini\nn = 2\nprocesses = 8\n")
    assert [s.value for s in read.settings] == ["8", "%(n)"]
    assert any("inherited" in str(warning) for warning in read.warnings)


def test_strict(conf):
    assert conf.fails("strict = true\nvaccum = true\n") == (
        "app.ini:3: strict: there is no option 'vaccum'; did you mean vacuum?"
    )
    assert conf.fails("vaccum = true\nstrict = true\n").startswith("app.ini:2: strict")
    assert conf.read("strict = true\nset-ph = x=1\nprocesses = %(x)\n").value("processes") == "1"


def test_include_of_the_same_file_is_refused(conf):
    conf.write("a.ini", "[uwsgi]\nini = b.ini\n")
    conf.write("b.ini", "[uwsgi]\n\ninclude = a.ini\n")
    message = conf.fails("--ini", "a.ini")
    assert message.startswith("b.ini:3: ") and "includes itself" in message
    conf.write("c.ini", "[uwsgi]\ninherit = c.ini\n")
    assert conf.fails("--ini", "c.ini").startswith("c.ini:2: ")
    conf.write("d.ini", "[uwsgi]\nini = :base\n[base]\nmaster = true\n")
    assert pairs(conf.read("--ini", "d.ini")) == [("master", "true")]


def test_circles_of_values_are_refused(conf):
    assert conf.fails("a = x%(a)\nb = 1\n").startswith("app.ini:2: 'a' contains itself")
    assert "contains itself" in conf.fails("a = x%(b)\nb = y%(a)\n")


def test_blocks_do_not_nest(conf):
    assert conf.fails("if-env = HOME\nif-env = PATH\na = 1\nendif\nendif\n").startswith("app.ini:3: if-env inside")


def test_standard_input(conf):
    import io

    read = conf.read("--ini", "-", stdin=io.BytesIO(b"[uwsgi]\nmaster = %o\n"))
    assert pairs(read) == [("master", "-")]
    assert read.settings[0].file == "standard input"


def test_commands_only_where_they_are_allowed(conf):
    conf.write("x.ini", "[uwsgi]\na = @(exec://echo hi)\n")
    assert conf.fails("--ini", "x.ini").startswith("x.ini:2: ")
    assert pairs(conf.read("--ini", "x.ini", allow_exec=True)) == [("a", "hi")]
    assert "commands" in conf.fails("--ini", "exec://cat x.ini")
    assert "http://" in conf.fails("--ini", "http://127.0.0.1/x.ini")


def test_blacklist(conf):
    assert conf.fails("blacklist = threads\nthreads = 2\n").startswith("app.ini:3: ")
    conf.read("blacklist = threads\nprocesses = 2\nend-blacklist =\nthreads = 2\n")
    assert conf.fails("whitelist = threads end-whitelist\nprocesses = 2\n").startswith("app.ini:3: ")


def test_injected_text_keeps_its_lines(conf):
    conf.write("before.txt", "# c\n[uwsgi]\nchdir = %(nope)\n")
    conf.write("app.ini", "\nlogto = $(NOPE)\n")
    read = conf.read("--inject-before", "before.txt", "--ini", "app.ini")
    assert [(s.file, s.line) for s in read.settings] == [("before.txt", 3), ("app.ini", 2)]
    assert [(w.file, w.line) for w in read.warnings] == [("before.txt", 3), ("app.ini", 2)]


def test_get_and_print(conf):
    read = conf.read("print = a %(x)\nx = b\niprint = %(x)\nget = x\n")
    assert read.output == ["%(x)", "a b", "b"] and read.exit_code == 0


def test_negative_numbers(conf):
    assert conf.fails("processes = -1\n") == "app.ini:2: processes = '-1': uWSGI takes no negative number here"
    assert conf.read("harakiri = -1\n").value("harakiri") == "-1"
