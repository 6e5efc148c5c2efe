"""Internal routing: the same rules in uWSGI and here, asked the same; and what is here only."""

import base64
import json
import re
import textwrap

import pytest

from tests.compat_uwsgi.test_as_uwsgi import Theirs
from tests.lib.server import Server, free_port

APP = """
    import json

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        status = path.split("/")[2] + " Thing" if path.startswith("/status/") else "200 OK"
        start_response(status, [("Content-Type", "application/json"), ("X-App", "yes"), ("X-Two", "1"), ("X-Two", "2")])
        return [json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()]
"""

RULES = r"""
    route = ^/red/(.*)$ redirect:/new/$1?x=${QUERY_STRING}
    route = ^/perm/ redirect-permanent:http://${HTTP_HOST}${PATH_INFO}
    route = ^/perm2/(\w+) redirect-301:/two/$1
    route = ^/found redirect-302:/found/$1here
    route = ^/break403 break:403 Forbidden
    route = ^/break0 break:
    route = ^/return return:404
    route = ^/status-only break-with-status:503
    route = ^/rewr/(.*) rewrite:/w/$1?a=b
    route = ^/plain/(.*) rewrite:/w/%%41$1
    route = ^/stop/(.*) rewrite-last:/w/$1
    route = ^/w/ addheader:X-W: got ${PATH_INFO}
    route = ^/grp/(\w+)/(\w+) addheader:X-G: $2-$1-$3-$$-$x-${qs[a]}-${qs[n]}-${cookie[c]}-${HTTP_X_FOO}-$
    route-run = addheader:X-Run: $1-${REQUEST_METHOD}-$
    route-if = equal:${PATH_INFO};/eq addheader:X-Eq: $1|${PATH_INFO}
    route-if = eq:${QUERY_STRING}; addheader:X-No-Query: y
    route-if = equal:nothing addheader:X-Half: y
    route-if-not = equal:nothing addheader:X-Not-Half: y
    route-if = regexp:${PATH_INFO};^/re/(.*)$ addheader:X-Re: ($1)
    route-if = re:${HTTP_X_FOO};^(f)(o+)$ addheader:X-Foo: $2$1
    route-if = startswith:${PATH_INFO};/st addheader:X-Starts: y
    route-if-not = endswith:${PATH_INFO};.txt addheader:X-Not-Txt: y
    route-if = ishigher:${CONTENT_LENGTH};10 break:413 Too Large
    route-if = islower:${qs[n]};10 addheader:X-Low: y
    route-if = >=:${qs[n]};10 addheader:X-Ge: y
    route-if = <=:${qs[n]};10 addheader:X-Le: y
    route-if = ipv4in:${REMOTE_ADDR};127.0.0.0/8 addheader:X-Local: y
    route-if = ipv4in:10.1.2.3;10.1.2.0/25 addheader:X-In: y
    route-if = ipv4in:10.1.2.200;10.1.2.0/25 addheader:X-Out: y
    route-if = ipv6in:fd00:1::2;fd00:1::/31 addheader:X-In6: y
    route-if = ipv6in:fd00:2::2;fd00:1::/32 addheader:X-Out6: y
    route-if = contains:${QUERY_STRING};zap addheader:X-Zap: y
    route-if = empty:${HTTP_X_FOO} addheader:X-Empty: y
    route-if = isfile:FOLDER${PATH_INFO} addheader:X-File: y
    route-if = isdir:FOLDER${PATH_INFO} addheader:X-Dir: y
    route-if = exists:FOLDER${PATH_INFO} addheader:X-Exists: y
    route-if = islink:FOLDER${PATH_INFO} addheader:X-Link: y
    route-if = isexec:FOLDER${PATH_INFO} addheader:X-Exec: y
    route = ^/del delheader:X-Two
    route = ^/go goto:there
    route = ^/num goto:60
    route-run = addheader:X-Skipped: y
    route-label = there
    route-run = addheader:X-There: y
    route = ^/goback goto:there
    route = ^/static/(.*) static:FOLDER/$1
    route = ^/file$ file:filename=FOLDER/page.html,status=404 Nope
    route = ^/typed file:filename=FOLDER/page.html,content_type=text/x-y
    route = ^/next file-next:filename=/nonexistent
    route = ^/auth$ basicauth:Realm,user:pw
    route = ^/auth2 basicauth-next:R,one:1
    route = ^/auth2 basicauth:R,two:2
    route = ^/authf basicauth:F,FOLDER/passwords
    route = ^/auth3 basicauth:R,one:1
    route = ^/auth3 basicauth:R,two:2
    route = ^/auth4 basicauth-next:R,one:1
    route = ^/auth5 setuser:bob
    route = ^/auth5 basicauth:R,one:1
    route = ^/user setuser:bob:x
    route = ^/script setscriptname:/script
    route = ^/script/fix fixpathinfo:
    route = ^/method setmethod:PUT
    route = ^/uri seturi:/other?z
    route = ^/addr setremoteaddr:9.9.9.9
    route = ^/path setpathinfo:/elsewhere
    route = ^/scheme setscheme:https
    route = ^/root setdocroot:/srv
    route = ^/var addvar:FOO=bar-${REQUEST_URI}
    route = ^/var addvar:FOO=${FOO}-again
    route = ^/math addvar:N=5
    route = ^/math +:N,3
    route = ^/math -:N
    route = ^/expires expires:unix=0,value=10
    route = ^/clear clearheaders:201 Created
    route = ^/clear addheader:X-C: 1
    route = ^/clear send:hel
    route = ^/clear send:lo
    route = ^/clear break:
    route = ^/coded addheader:X-B64: ${base64[PATH_INFO]} ${hex[PATH_INFO]} ${uwsgi[wid]} ${uwsgi[status]}
    route = ^/unknown addheader:X-U: [${NOPE}][${foo[bar]}][${open
    route-host = ^127 addheader:X-Host: y
    route-qs = k=(\w+) addheader:X-Qs: $1
    route-remote-addr = ^127 addheader:X-Ra: y
    route-user-agent = curl addheader:X-Ua: y
    route-referer = . addheader:X-Ref: y
    route-remote-user = ^(user) addheader:X-Ru: $1
    route-uri = \? addheader:X-Uri: y
    response-route-status = 404 addheader:X-Resp: 404
    response-route-run = addheader:X-Status: ${uwsgi[status]}
    response-route = ^/last addheader:X-Last: y
    error-route-status = 502 redirect:/oops
    error-route-status = 503 addheader:X-Err: y
    error-route-if = equal:${uwsgi[status]};418 break:420 Calm
    final-route-status = 404 donotlog:
    final-route = ^/quiet donotlog:
    final-route = ^/told log:final ${PATH_INFO} ${uwsgi[status]}
    route = ^/var logvar:what=${qs[a]}-${REQUEST_METHOD}
    final-route = ^/var logvar:when=${uwsgi[status]}
    route = ^/silent donotlog:
    route = ^/last last:
    route-run = addheader:X-End: y
"""


def basic(text):
    return ("Authorization", "Basic " + base64.b64encode(text.encode()).decode())


def case(target, *fields, method="GET", body=None):
    return method, target, body, [("Host", "127.0.0.1"), *fields]


CASES = [
    case(target)
    for target in (
        "/ /red/a/b?q=1 /perm/x /perm2/x /found /break403 /return /rewr/x%41?c=d /rewr/x /plain/b?q /stop/y /eq /eq?n=3 /re/tail "
        "/st /x.txt /?zap&k=v /?n=10 /?n=11 /?n=-4x /a.txt /sub /link /run.sh /del /goto /num /static/a.txt /file /typed?a=b /next "
        "/auth /auth2 /authf /user /script/a /script/fix/a /method /uri /addr /path /scheme /root /var?1 /math /expires /clear "
        "/coded /unknown /status/404 /status/502 /status/503 /status/418 /status/500 /told /last/x"
    ).split()
] + [
    case("/grp/aa/bb?a=1&b=2&n=7"),
    case("/grp/aa/bb?a=1", ("Cookie", "z=1; c=cc"), ("X-Foo", "foo"), ("Referer", "r"), ("User-Agent", "curl/1")),
    case("/post", method="POST", body=b"12345678901"),
    case("/post", method="POST", body=b"1234567890"),
    case("/auth", basic("user:pw")),
    case("/auth", basic("user:pwx")),
    case("/auth", basic("user:p")),
    case("/auth", ("Authorization", "Bearer x")),
    case("/auth2", basic("one:1")),
    case("/auth2", basic("two:2")),
    case("/auth2", basic("x:2")),
    case("/auth3", basic("one:1")),
    case("/auth3", basic("two:2")),
    case("/auth4"),
    case("/auth4", basic("one:1")),
    case("/auth4", basic("two:2")),
    case("/auth4", ("Authorization", "Bearer abcdefgh")),
    case("/auth5"),
    case("/authf", basic("sha:secret")),
    case("/authf", basic("sha:other")),
    case("/authf", basic("des:secret")),
    case("/authf", basic("des:secretx")),
    case("/authf", basic("nobody:secret")),
]

# Whoever makes a head says these in another way, or does not say them.
OWN = {"date", "server", "connection", "content-length", "transfer-encoding", "etag", "last-modified", "accept-ranges"}
VARIABLES = (
    "PATH_INFO SCRIPT_NAME QUERY_STRING REQUEST_METHOD REQUEST_URI REMOTE_ADDR REMOTE_USER DOCUMENT_ROOT FOO N wsgi.url_scheme"
).split()


def write(folder, rules=RULES):
    (folder / "sub").mkdir(parents=True)
    (folder / "app.py").write_text(textwrap.dedent(APP))
    (folder / "a.txt").write_text("static")
    (folder / "page.html").write_text("<p>page")
    (folder / "run.sh").write_text("")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("a.txt")
    (folder / "passwords").write_text("des:abNANd1rDfiNc\nsha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
    text = textwrap.dedent(rules).replace("FOLDER", str(folder))
    text += "log-format = %(method) %(uri) %(status) %(what)/%(when)\n"
    (folder / "u.ini").write_text("[uwsgi]\nmodule = app\nmaster = true\nprocesses = 1\n" + text)


def ours_in(folder, *more):
    server = Server(None, ["--ini", "u.ini", *more], cwd=folder, logdir=folder, bind=None)
    server.port = free_port()
    server.address = ("127.0.0.1", server.port)
    server.command += ["--http-socket", "127.0.0.1:%d" % server.port]
    return server


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours") / "f"
    write(folder)
    with ours_in(folder).start("/") as server:
        yield server


@pytest.fixture(scope="module")
def theirs(uwsgi, tmp_path_factory, ours):
    folder = tmp_path_factory.mktemp("theirs") / "f"
    write(folder)
    plugins = "router_redirect,router_basicauth,router_rewrite,router_static,router_expires"
    server = Theirs(uwsgi, folder, ["--plugin", plugins])
    try:
        server.start("/")
        yield server
    finally:
        server.kill()


def shown(server, question):
    """What has to be the same of an answer."""
    method, target, body, fields = question
    answer = server.request(method, target, body, fields)
    kept = sorted((name.lower(), value) for name, value in answer.headers if name.lower() not in OWN)
    if answer.header("content-type") != "application/json":  # of small texts: said here only, or with the charset
        kept = [one for one in kept if one[0] != "content-type" or one[1].startswith("text/x-")]
        return answer.status, kept, answer.body if answer.header("location") is None else b""
    environ = json.loads(answer.body)
    return answer.status, kept, {name: environ[name] for name in VARIABLES if name in environ}


@pytest.mark.parametrize("question", CASES, ids=lambda question: "%s %s" % question[:2])
def test_as_in_uwsgi(theirs, ours, question):
    assert shown(ours, question) == shown(theirs, question)


def test_what_closes_the_connection(theirs, ours):
    """Also here, with a line in the log of requests."""
    for server in (theirs, ours):
        for target in ("/break0", "/goback"):
            with server.connect() as conn:
                conn.send("GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % target)
                assert conn.at_end()
    ours.wait_log("GET /break0 444 ", out=True)


def test_what_is_logged(ours):
    for target in ("/silent", "/quiet", "/status/404", "/told", "/var?a=b", "/loud"):
        ours.get(target)
    ours.wait_log("GET /loud", out=True)
    lines = ours.stdout()
    assert not re.search("GET /(silent|quiet|status/404)", lines)
    assert "GET /told 200 -/-\n" in lines
    assert "GET /var?a=b 200 b-GET/200\n" in lines
    assert "final /told 200" in ours.log()


def test_what_a_client_sends_stays_a_value(ours):
    """It makes no line of a head, names no variable, no other host and no file elsewhere."""
    answer = ours.get("/red/%0d%0aX-Evil:%20y")
    assert answer.status == 302 and answer.header("x-evil") is None
    assert answer.header("location") == "/new/%0D%0AX-Evil:%20y?x="
    answer = ours.get("/grp/a/b?a=${REMOTE_ADDR}", headers=[("Cookie", "c=$1")])
    assert answer.header("x-g") == "b-a--$$-$x-${REMOTE_ADDR}--$1--"
    for target in ("/static/../../etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/static/..%2f..%2fetc/passwd"):
        assert ours.get(target).status == 403, target
    assert ours.get("/static/a.txt%00.png").status == 403
    assert ours.get("/static/none").status == 404  # uWSGI closes the connection


HERE = r"""
    route = ^/to(.*) redirect:$1
    route = ^/slow(.*) addheader:X-Big: ${HTTP_X_BIG}${HTTP_X_BIG}${HTTP_X_BIG}${HTTP_X_BIG}${HTTP_X_BIG}
    route = ^/(a+)+$ addheader:X-A: y
    route = ^/six basicauth:six,FOLDER/passwords
    route = ^/line addheader:X-Line: a${PATH_INFO}b
    route = ^/hop addheader:Connection: upgrade
    route = ^/app setapp:/two
    route = ^/noapp setapp:/three
    route = ^/bad setmethod:${QUERY_STRING}
    route-run = addheader:X-Last: y
    mount = /two=app.py
"""


def test_what_is_here_only(tmp_path):
    write(tmp_path / "f", HERE)
    hashed = "$6$0yMIfkbnHvWlFjgA$/US6T5QoNOFIOtTURnxJVvfTo/3muedA05xamvrapWap5HH/g.kFHjur7F3v9m6fdqRxQJPfImH83xldp2jmz."
    (tmp_path / "f" / "passwords").write_text("six:%s\n" % hashed)
    with ours_in(tmp_path / "f").start("/") as server:
        assert server.get("/to//evil.example/x").header("location") == "/evil.example/x"
        assert server.get("/to/%5cevil.example").header("location") == "/%5Cevil.example"
        big = [("X-Big", "x" * 4000)]
        assert server.get("/slow", headers=big).status == 500  # and not without the field
        # A pattern that takes for ever decides nothing: the request does not get round it.
        assert server.get("/" + "a" * 40 + "!").status == 400
        assert server.get("/six", headers=[basic("six:secret")]).status == 200
        assert server.get("/six", headers=[basic("six:secret!")]).status == 401
        answer = server.get("/line%0d%0aX-Evil:%20y")
        assert answer.status == 200 and answer.header("x-line") is None and answer.header("x-evil") is None
        assert server.get("/hop").header("connection") != "upgrade"
        assert server.get("/app").status == 200
        assert server.get("/noapp").status == 500
        assert server.get("/bad?A%20B").status == 400
        assert server.get("/bad?PATCH").json()["REQUEST_METHOD"] == "PATCH"
        server.wait_log("could not be decided")


MOUNTED = r"""
    mount = /app=app.py
    mount = /app/two=app.py
    route-run = addheader:X-Path: ${PATH_INFO} ${SCRIPT_NAME}
    route = ^/admin addheader:X-Admin: y
    route = ^/app addheader:X-Full: y
    route = ^/new rewrite:/other
    route = ^/back rewrite:/app/x
"""


@pytest.mark.parametrize("managed", [False, True])
def test_paths_below_a_mount(tmp_path, uwsgi, managed):
    """Where manage-script-name is on, rules see what the application sees."""
    rules = MOUNTED + "    manage-script-name = true\n" * managed
    write(tmp_path / "ours", rules)
    write(tmp_path / "theirs", rules)
    theirs = Theirs(uwsgi, tmp_path / "theirs", ["--plugin", "router_rewrite"])
    targets = ["/app/admin", "/app/two/admin?x=1", "/app/", "/app/new", "/app/back", "/app", "/admin", "/new"] if managed else ["/admin", "/app"]
    try:
        theirs.start("/")
        with ours_in(tmp_path / "ours").start("/") as server:
            for target in targets:
                found, expected = shown(server, case(target)), shown(theirs, case(target))
                assert found[1] == expected[1], target
                if managed:
                    assert found == expected, target
    finally:
        theirs.kill()


def test_the_same_again(ours):
    """A connection that asks the same again: nothing of a request is left to the next."""
    with ours.connect() as conn:
        for target in ["/user", "/eq", "/user", "/user", "/method", "/eq", "/rewr/x", "/eq", "/eq", "/script/fix/a", "/eq"] * 2:
            conn.send("GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % target)
            answer = conn.read_response()
            status, fields, environ = shown(ours, case(target))
            again = json.loads(answer.body)
            assert {name: again[name] for name in VARIABLES if name in again} == environ, target


def test_a_request_that_waits(tmp_path):
    """With a body that comes late, or behind a busy thread, a rule has been told twice and acts once."""
    write(tmp_path / "f", "route-run = log:told ${REQUEST_URI}\nroute-run = addheader:X-Once: y\n")
    with ours_in(tmp_path / "f").start("/ready") as server:
        with server.connect() as conn:
            conn.send("POST /late HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")
            server.wait_log("told /late")
            conn.send("body")
            answer = conn.read_response()
        assert answer.status == 200 and answer.all("x-once") == ["y"]
        assert server.log().count("told /late") == 1


ASYNC = """
    import asyncio, json

    async def application(scope, receive, send):
        if scope["type"] != "http":
            return
        await asyncio.sleep(0)
        status = int(scope["path"].rpartition("/")[2]) if scope["path"].startswith("/status/") else 200
        fields = [(b"content-type", b"application/json"), (b"x-app", b"yes")]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        body = {"path": scope["path"], "query": scope["query_string"].decode(), "client": scope["client"][0]}
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})
"""


def test_with_an_asgi_application(tmp_path):
    """What rules say of a request stays with it when it waits in the event loop."""
    rules = r"""
        route = ^/w/(.*) addheader:X-W: $1
        route = ^/w/(.*) delheader:X-App
        route = ^/rewr/(.*) rewrite:/w/$1?a=b
        route = ^/addr setremoteaddr:9.9.9.9
        route = ^/silent donotlog:
        error-route-status = 502 redirect:/oops
        response-route-run = addheader:X-Status: ${uwsgi[status]}
        final-route-run = log:over ${PATH_INFO}
    """
    write(tmp_path / "f", rules)
    (tmp_path / "f" / "app.py").write_text(textwrap.dedent(ASYNC))
    with ours_in(tmp_path / "f", "--interface", "asgi").start("/") as server:
        answer = server.get("/w/one")
        assert (answer.header("x-w"), answer.header("x-app"), answer.header("x-status")) == ("one", None, "200")
        assert server.get("/rewr/x%41?q").json() == {"path": "/w/xA", "query": "a=b&q", "client": "127.0.0.1"}
        assert server.get("/addr").json()["client"] == "9.9.9.9"
        answer = server.get("/status/502")
        assert (answer.status, answer.header("location")) == (302, "/oops")
        server.get("/silent")
        server.get("/loud")
        server.wait_log("GET /loud", out=True)
        assert "GET /silent" not in server.stdout()
        server.wait_log("over /w/xA")


def test_what_convert_writes_does_the_same(tmp_path, run):
    write(tmp_path / "f", 'route = ^/a"(b) addheader:X-B: $1\nroute-run = gzip:\nroute-run = addheader:X-All: y\n')
    done = run("convert", str(tmp_path / "f" / "u.ini"))
    assert done.returncode == 0, done.stderr
    assert "not there yet, and left out: route-run (" in done.stdout
    toml = re.sub(r"(?m)^bind .*\n", "", done.stdout)
    (tmp_path / "f" / "stoker.toml").write_text(toml)
    server = Server(None, ["--config", "stoker.toml"], cwd=tmp_path / "f", logdir=tmp_path / "f")
    with server.start("/"):
        answer = server.get("/a%22b")
        assert (answer.header("x-b"), answer.header("x-all")) == ("b", "y")


@pytest.mark.parametrize(
    "rule, words",
    [
        ("route = ^/ cache:key=x", "u.ini:5: route: the action cache: is not there, and left out it would change"),
        ("route = ^/ ldapauth:r,url=ldap://x", "u.ini:5: route: the action ldapauth: is not there"),
        ("route = ^/ http:127.0.0.1:80", "u.ini:5: route: the action http: is not there"),
        ("route = ^/ nothing:x", "there is no action 'nothing'"),
        ("route = ^/( log:x", "the pattern '^/('"),
        ("route-if = lord:x break:", "there is no condition 'lord'"),
        ("route = ^/ basicauth:r,/nonexistent/x", "the file of passwords /nonexistent/x: No such file"),
        ("strict = true\nroute = ^/ gzip:", "u.ini:6: strict: not there yet: route ("),
    ],
)
def test_what_cannot_be(tmp_path, run, rule, words):
    write(tmp_path / "f", rule + "\n")
    done = run("--check", "--ini", str(tmp_path / "f" / "u.ini"))
    assert done.returncode == 1 and words in done.stderr, done.stderr
