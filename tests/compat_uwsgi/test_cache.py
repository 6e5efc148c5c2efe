"""uWSGI's caches: the same calls in uWSGI and here, and what becomes of the options."""

import textwrap

import pytest

from tests.compat_uwsgi.conftest import result
from tests.compat_uwsgi.test_as_uwsgi import Theirs
from tests.lib.server import free_port

# What is called in uWSGI and here, and has to come to the same: `u` is the module uwsgi.
ROUTINES = r"""
u.cache_get("none")
u.cache_set("a", "one")
u.cache_set("a", "two")
u.cache_get("a")
u.cache_get(b"a")
u.cache_update("a", b"\x00\xff")
u.cache_get("a")
u.cache_set(b"\xff\x00b", b"bytes")
u.cache_get(b"\xff\x00b")
u.cache_set("\u20ac", "\u20ac")
u.cache_get("\u20ac")
u.cache_exists("a"), u.cache_exists("none"), u.cache_exists("a", "small")
u.cache_del("a"), u.cache_del("a")
u.cache_get("a")
u.cache_set("", "x"), u.cache_set("x", ""), u.cache_get(""), u.cache_del(""), u.cache_exists("")
u.cache_set("big", "x" * 100), u.cache_set("bigger", "x" * 101), len(u.cache_get("big"))
u.cache_set("k" * 50, "x"), u.cache_set("k" * 51, "x"), u.cache_get("k" * 51)
u.cache_set("e", "x", 60), u.cache_set("f", "x", 0), u.cache_update("f", "y", 60), u.cache_get("e"), u.cache_get("f")
u.cache_set("e2", "x", True), u.cache_set("n", "x", 0, "small"), u.cache_get("n", "small"), u.cache_get("n")
u.cache_get("n", ""), u.cache_set("first", "x", 0, ""), u.cache_get("first")
u.cache_get("a", "nowhere"), u.cache_set("a", "x", 0, "nowhere"), u.cache_clear("nowhere"), u.cache_del("a", "nowhere")
u.cache_exists("a", "nowhere"), u.cache_num("a", "nowhere"), u.cache_inc("a", 1, 0, "nowhere")
u.cache_keys("nowhere")
u.cache_inc("i"), u.cache_num("i"), u.cache_inc("i"), u.cache_num("i"), u.cache_inc("i", 40), u.cache_num("i")
u.cache_dec("i"), u.cache_num("i"), u.cache_dec("i", 40), u.cache_num("i"), u.cache_dec("i", 5), u.cache_num("i")
u.cache_mul("i"), u.cache_num("i"), u.cache_mul("i", -5), u.cache_num("i"), u.cache_div("i"), u.cache_num("i")
u.cache_div("i", 3), u.cache_num("i"), u.cache_div("i", 0), u.cache_num("i")
u.cache_dec("d"), u.cache_num("d"), u.cache_mul("m", 3), u.cache_num("m"), u.cache_div("v", 3), u.cache_num("v")
u.cache_inc("w", 2**62), u.cache_inc("w", 2**62), u.cache_num("w")
u.cache_inc("t", 5, 60), u.cache_num("t"), u.cache_get("i"), u.cache_get("t")
u.cache_inc("s", 5, 60, "small"), u.cache_num("s", "small"), u.cache_num("none"), u.cache_num("f")
u.cache_set("eight", b"\x01\0\0\0\0\0\0\0"), u.cache_num("eight"), u.cache_inc("eight"), u.cache_num("eight")
sorted(u.cache_keys())
sorted(u.cache_keys("small")), sorted(u.cache_keys("")) == sorted(u.cache_keys())
u.cache_clear("small"), u.cache_keys("small"), u.cache_get("f")
[u.cache_set("l%d" % i, "x" * 60, 0, "small") for i in range(3)]
u.cache_clear(), u.cache_keys(), u.cache_clear()
u.cache_set("wide", "x" * 300, 0, "bits"), len(u.cache_get("wide", "bits")), u.cache_set("wider", "x" * 2001, 0, "bits")
u.cache_update("wide", "y" * 500, 0, "bits"), u.cache_get("wide", "bits") == b"y" * 500, u.cache_del("wide", "bits")
u.cache_set("c", "x", 0, "bits"), u.cache_update("c", "xyz", 0, "bits"), u.cache_get("c", "bits")
[u.cache_set("r%d" % i, "x", 0, "lru") for i in range(3)], u.cache_get("r0", "lru"), u.cache_exists("r1", "lru")
u.cache_get()
u.cache_get("a", "b", "c")
u.cache_get(1)
u.cache_get(None)
u.cache_get("a", None)
u.cache_get("a", b"small")
u.cache_get("a", "sm\0all")
u.cache_get("\udc80")
u.cache_get(bytearray(b"a"))
u.cache_get(memoryview(b"a"))
u.cache_get(key="a")
u.cache_set("a")
u.cache_set("a", 1)
u.cache_set("a", None)
u.cache_set("a", bytearray(b"x"))
u.cache_set("a", "x", "60")
u.cache_set("a", "x", 1.5)
u.cache_set("a", "x", None)
u.cache_set("a", "x", 2**63)
u.cache_set("a", "x", 0, "small", 1)
u.cache_set("a", "x", 0, None)
u.cache_inc("a", "1")
u.cache_inc("a", 2**63)
u.cache_inc("a", 1.0)
u.cache_inc()
u.cache_del()
u.cache_del(1)
u.cache_exists()
u.cache_exists(b"a", 1)
u.cache_clear(1)
u.cache_clear("a", "b")
u.cache_keys(1)
u.cache_num()
u.cache_num("a", 1)
u.cache_mul(None)
u.cache_div("a", None)
type(u.cache_get).__name__, u.cache_get.__name__
"""

INI = """
    [uwsgi]
    module = app
    master = true
    processes = 1
    cache2 = name=main,items=100,blocksize=100,keysize=50
    cache2 = name=small,items=10,blocksize=64
    cache2 = name=bits,items=10,blocks=20,blocksize=100,bitmap=1
    cache2 = name=lru,items=10,purge_lru=1
    add-cache-item = small given=a value
    add-cache-item = main given=another
"""

APP = """
import json
import uwsgi
from routines import ROUTINES


def run(line):
    try:
        return repr(eval(line, {"u": uwsgi}))
    except Exception as error:
        return type(error).__name__


# While it is loaded, before anything is forked, and in a request.
early = [run('u.cache_get("given")'), run('u.cache_get("given", "small")'), run('u.cache_set("early", "x", 0, "lru")')]


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    lines = [line for line in ROUTINES.splitlines() if line]
    lines = lines if environ["PATH_INFO"] == "/" else ['u.cache_get("early", "lru")', 'sorted(u.cache_keys("lru"))']
    return [json.dumps([early] + [(line, run(line)) for line in lines]).encode()]
"""


@pytest.fixture
def both(tmp_path, uwsgi, serve):
    """uWSGI and this server with the same files."""
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(APP)
        (tmp_path / name / "routines.py").write_text("ROUTINES = %r\n" % ROUTINES)
        (tmp_path / name / "u.ini").write_text(textwrap.dedent(INI))
    theirs = Theirs(uwsgi, tmp_path / "theirs", [])
    theirs.start("/again")
    port = free_port()
    ours = serve(None, "--http-socket", "127.0.0.1:%d" % port, "--ini", "u.ini", cwd=tmp_path / "ours", bind=None, start=False)
    ours.address, ours.port = ("127.0.0.1", port), port
    ours.start("/again")
    yield theirs, ours
    theirs.kill()


def test_the_same_calls(both):
    theirs, ours = both
    expected, found = theirs.get("/").json(), ours.get("/").json()
    assert found[0] == expected[0]
    for theirs_line, ours_line in zip(expected[1:], found[1:]):
        assert ours_line == theirs_line
    assert len(found) == len(expected) > 70
    assert ours.get("/again").json()[1:] == theirs.get("/again").json()[1:]


BACKENDS = """
import json
import django.conf

settings = {"default": {"BACKEND": "django_uwsgi.cache.UwsgiCache", "LOCATION": "django", "TIMEOUT": 300}}
django.conf.settings.configure(CACHES=settings)

from cachelib import UWSGICache
from django.core.cache import cache


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    flask = UWSGICache(cache="flask")
    if environ["PATH_INFO"] == "/set":
        cache.set("who", {"a": [1, 2]}, 60)
        cache.set("gone", 1, 0)
        cache.add("who", "not this")
        cache.set("n", 41)
        flask.set("who", ("x", None))
        flask.set_many({"a": 1, "b": 2})
        flask.delete("b")
        return [json.dumps([cache.incr("n"), flask.add("who", 1), flask.inc("a", 5)]).encode()]
    found = [cache.get("who"), cache.get("gone", "nothing"), cache.get("n"), flask.get("who"), flask.get("a"), flask.has("b")]
    return [json.dumps(found).encode()]
"""


def test_backends_of_others(serve, tmp_path):
    """Those of Django and Flask for uWSGI's cache, as they are on PyPI."""
    pytest.importorskip("django_uwsgi")
    pytest.importorskip("cachelib")
    (tmp_path / "app.py").write_text(BACKENDS)
    (tmp_path / "u.ini").write_text(
        "[uwsgi]\nmodule = app\nmaster = true\nprocesses = 2\ncache2 = name=django,items=100\ncache2 = name=flask,items=100\n"
    )
    server = serve(None, "--ini", "u.ini", cwd=tmp_path)
    assert server.get("/set").json() == [42, False, 6]
    for _ in range(4):  # whichever worker it is
        assert server.get("/").json() == [{"a": [1, 2]}, "nothing", 42, ["x", None], 6, False]


def test_what_options_come_to(conf, capsys):
    """uWSGI's words in those of `cache`."""
    import importlib

    translate = importlib.import_module("compat_sources.translate")
    read = conf.read(
        "module = app\ncache2 = name=a,items=5,udp=x:1,foo=1,purge_lru=0\ncache = 50\ncache-blocksize = 100\n"
        "cache-store = /tmp/x\ncache-store-sync = 3\ncache-no-expire = true\ncache2 = name=b,maxitems=6,lazy=1,no_expire=1\n"
    )
    translation = translate.translate(read, {})
    rows = {name: value for name, value, _, _ in translation.settings}
    assert rows["cache"] == [
        "name=default,items=50,blocksize=100,store=/tmp/x,storesync=3,no_expire=1",
        "name=a,items=5,purge_lru=1,storesync=3,no_expire=1",
        "name=b,maxitems=6,lazy=1,storesync=3",
    ]
    told = "\n".join(translation.notices)
    assert "udp is left out" in told and "foo is skipped" in told and "purge_lru=0 is on" in told
    for line in ("cache2 = items=5", "cache2 = name=x"):
        with pytest.raises(result.ConfigError, match="name=NAME,items=NUMBER"):
            translate.translate(conf.read("module = app\n" + line + "\n"), {})
