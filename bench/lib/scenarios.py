"""What is measured, and what it is measured against.

SCENARIOS and TARGETS are the two tables of the benchmark; everything else serves them.
"""

import dataclasses

ALL = "stoker,stoker+nolog,epoll,epoll-same-size,nginx,bjoern,fastpysgi,granian,peregrine,uwsgi," \
      "uwsgi-http,gunicorn-sync,gunicorn-gthread+t4,waitress+t4"
PYTHON = "stoker,stoker+nolog,bjoern,fastpysgi,granian,peregrine,uwsgi,uwsgi-http," \
         "gunicorn-sync,gunicorn-gthread+t4,waitress+t4"
NEAR = "stoker,stoker+nolog,epoll,nginx,bjoern,fastpysgi,granian,peregrine,uwsgi"
THREADS = "stoker,stoker+t4,granian+t4,peregrine+t4,uwsgi+t4,gunicorn-gthread+t4,waitress+t4"
BEHIND = "stoker,stoker+nolog,uwsgi-limit,uwsgi,gunicorn-sync,gunicorn-gthread+t4"
KEPT = "stoker,stoker+nolog,uwsgi,gunicorn-gthread+t4"
FILES = "stoker,stoker+nolog,nginx,nginx+nolog"
ASGI = "stoker+asyncio,stoker+asyncio+nolog,stoker+uvloop,stoker+uvloop+nolog," \
       "uvicorn+uvloop,uvicorn+asyncio,granian-asgi,hypercorn,fastpysgi-asgi,gunicorn-asgi," \
       "peregrine-asgi"
LIMITS = {"hello": ",epoll,uvicorn+uvloop+nolog,uvicorn+asyncio+nolog", "context": ",epoll,eager-limit"}  # by the application, and more peers
WEBSOCKET = ASGI.replace("uvicorn+asyncio", "uvicorn-wsproto+uvloop").replace(
    "gunicorn-asgi,", "")
GEVENT = "stoker+gevent,stoker+gevent+nolog,gunicorn-gevent,pywsgi,uwsgi-gevent"
TAKEOVER = "stoker,stoker+notakeover"


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One table of the report."""

    title: str
    app: str = "apps:hello"
    servers: str = PYTHON
    kind: str = "wrk"  # wrk, or a function of lib/special.py
    connections: int = 64
    wrk: tuple = ()  # arguments of wrk.lua
    pin: str = "one"  # "one": server and client share a CPU; "none": where the kernel puts them
    body: int = 0  # bytes of the answer's body, for servers that need no application
    restarts: int = 0  # at least so many starts, spread over the rounds
    path: str = "/"
    front: str = ""  # "uwsgi", "http": nginx is before it and speaks that where the server can
    unix: bool = False  # between the front end and the server
    static: int = 0  # bytes of the file that is asked for
    tls: bool = False
    base: bool = False  # also an earlier state of stoker, where there is one


SCENARIOS = {
    "hello": Scenario("14 bytes, wrk's one header field", servers=ALL, base=True),
    "hello-browser": Scenario("14 bytes, the 13 header fields of a browser", servers=NEAR,
                              wrk=("browser=1",), base=True),
    "flask": Scenario("Flask, 14 bytes", app="app_flask:app", restarts=8),
    "flask-c1": Scenario("Flask, 14 bytes, 1 connection", app="app_flask:app", restarts=8,
                         connections=1, servers="stoker,stoker+nolog,bjoern,fastpysgi,uwsgi"),
    "json": Scenario("json.dumps of 1 kB in the application", app="apps:document"),
    "body100k": Scenario("one block of 100 kB", app="apps:body100k"),
    "body100k-c1": Scenario("one block of 100 kB, 1 connection", app="apps:body100k",
                            connections=1,
                            servers="stoker,stoker+nolog,bjoern,fastpysgi,uwsgi"),
    "stream": Scenario("a generator of 64 blocks of 1 kB", app="apps:stream"),
    "first-block": Scenario("a generator that waits 50 ms behind its first block",
                            app="apps:two_blocks", kind="first_block", pin="none"),
    "post10k": Scenario("upload of 10 kB", app="apps:upload", wrk=("method=POST", "body=10240")),
    "post1M": Scenario("upload of 1 MB, 16 connections", app="apps:upload", connections=16,
                       wrk=("method=POST", "body=1048576")),
    "post1M-c1": Scenario("upload of 1 MB, 1 connection", app="apps:upload", connections=1,
                          wrk=("method=POST", "body=1048576")),
    "pipelined": Scenario("16 requests in one write", servers=NEAR, wrk=("pipeline=16",)),
    "close": Scenario("a connection per request", servers=ALL, wrk=("close=1",)),
    "c1": Scenario("1 connection", servers=NEAR + ",stoker+notakeover", connections=1),
    "c1000": Scenario("1,000 connections", servers=NEAR, connections=1000),
    "sleep1ms": Scenario("the application waits 1 ms", app="apps:sleep1ms", servers=THREADS,
                         pin="none"),
    "compute2ms": Scenario("the application computes 2 ms", app="apps:compute2ms",
                           servers=THREADS, pin="none"),
    "flask-threads": Scenario("Flask, 1 and 4 threads", app="app_flask:app", servers=THREADS,
                              pin="none", restarts=8),
    "hello-threads": Scenario("14 bytes, 1 and 4 threads", servers=THREADS, pin="none"),
    "takeover": Scenario("14 bytes, take-over on and off", servers=TAKEOVER),
    "takeover-flask": Scenario("Flask, take-over on and off", app="app_flask:app",
                               servers=TAKEOVER, restarts=4),
    "takeover-t4": Scenario("14 bytes, 4 threads, take-over on and off",
                            servers="stoker+t4,stoker+t4+notakeover", pin="none"),
    "accesslog": Scenario("14 bytes, access log on and off",
                          servers="stoker,stoker+nolog,nginx,uwsgi,gunicorn-gthread+t4"),
    "rate100": Scenario("100 requests a second, paced", kind="rate", pin="none",
                        servers=NEAR + ",stoker+notakeover"),
    "idle": Scenario("CPU of an idle master with 4 workers, 10 s", kind="idle", pin="none",
                     servers="stoker+w4,granian+w4,peregrine+w4,uwsgi+w4,gunicorn-sync+w4,"
                             "gunicorn-gthread+w4+t4,nginx+w4"),
    "idle10k": Scenario("memory of 10,000 idle keep-alive connections", kind="idle10k", pin="none",
                        connections=10_000,
                        servers="stoker,epoll,nginx,bjoern,fastpysgi,granian,peregrine"),
    "slowloris": Scenario("500 requests/s beside 1,000 clients that dribble their heads",
                          kind="slowloris", pin="none",
                          servers="stoker,nginx,bjoern,fastpysgi,granian,peregrine"),
    "fair": Scenario("2 workers with 1 thread: 100 connections on a 1 ms endpoint, beside a request "
                     "that always runs for 1 s; against 1 worker without it", app="apps:fair",
                     kind="fair", pin="none", connections=100,
                     servers="stoker+w2,gunicorn-sync+w2,gunicorn-gthread+w2,uwsgi-http+w2,"
                             "granian+w2"),
    "startup": Scenario("exec to the first answer, beyond a bare import", kind="startup",
                        pin="none"),
    "startup-flask": Scenario("exec to the first answer, beyond a bare import (Flask)",
                              kind="startup", pin="none", app="app_flask:app"),
    "uwsgi-pass": Scenario("behind nginx, a unix socket, uwsgi_pass (gunicorn: proxy_pass): CPU of "
                           "the back end", front="uwsgi", unix=True, servers=BEHIND),
    "uwsgi-pass-tcp": Scenario("behind nginx, TCP, uwsgi_pass (gunicorn: proxy_pass): CPU of the "
                               "back end", front="uwsgi", servers=BEHIND),
    "proxy-keepalive": Scenario("behind nginx, a unix socket, proxy_pass with keep-alive (uwsgi: "
                                "uwsgi_pass): CPU of the back end", front="http", unix=True,
                                servers=KEPT),
    "proxy-keepalive-tcp": Scenario("behind nginx, TCP, proxy_pass with keep-alive (uwsgi: "
                                    "uwsgi_pass): CPU of the back end", front="http",
                                    servers=KEPT + ",granian"),
    "proxy-compute2ms": Scenario("behind nginx, a unix socket, proxy_pass with keep-alive (uwsgi: "
                                 "uwsgi_pass), the application computes 2 ms: CPU of the back end",
                                 app="apps:compute2ms", front="http", unix=True, pin="none",
                                 servers="stoker,stoker+t4,uwsgi,uwsgi+t4,gunicorn-gthread+t4"),
    **{f"static-{name}": Scenario(f"a file of {title}", servers=FILES, static=size,
                                  path=f"/f/{size}", connections=16 if size > 1_000_000 else 64)
       for name, title, size in [("1k", "1 kB", 1024), ("10k", "10 kB", 10_240),
                                 ("100k", "100 kB", 102_400), ("10m", "10 MB", 10_485_760)]},
    "tls": Scenario("14 bytes over TLS, kept connections", servers=FILES, tls=True),
    "tls-handshake": Scenario("14 bytes over TLS, a connection and a full handshake per request",
                              servers=FILES, tls=True, wrk=("close=1",)),
    **{f"asgi-{name}": Scenario(f"ASGI: {title}", app=f"apps_asgi:{app}",
                                servers=ASGI + LIMITS.get(app, ""), **more)
       for name, title, app, more in [
           ("hello", "14 bytes", "hello", {}),
           ("context", "14 bytes, a context variable is set", "context", {}),
           ("json", "json.dumps of 1 kB in the application", "document", {}),
           ("echo10k", "10 kB, sent back", "echo", {"wrk": ("method=POST", "body=10240")}),
           ("body100k", "one block of 100 kB", "body100k", {}),
           ("stream", "64 blocks of 1 kB", "stream", {}),
           ("sleep0", "await asyncio.sleep(0)", "sleep0", {}),
           ("sleep1ms", "await asyncio.sleep(0.001)", "sleep1ms", {"pin": "none"}),
           ("compute2ms", "the application computes 2 ms", "compute2ms", {"pin": "none"}),
           ("c1", "14 bytes, 1 connection", "hello", {"connections": 1}),
           ("timer", "how late a timer of the event loop is beside 1,000 ready requests, less the "
            "handlers' own time", "timer", {"kind": "timer", "pin": "none", "connections": 1000}),
       ]},
    "ws-echo": Scenario("64 WebSockets, each sends 64 bytes and awaits their echo",
                        app="apps_asgi:websocket", kind="ws_echo", body=64, servers=WEBSOCKET),
    "ws-echo-c1": Scenario("1 WebSocket, 64 bytes and their echo", app="apps_asgi:websocket",
                           kind="ws_echo", body=64, connections=1, servers=WEBSOCKET),
    "ws-idle": Scenario("memory of 2,000 idle WebSockets, without the application's own",
                        app="apps_asgi:websocket", kind="ws_idle", connections=2000, pin="none",
                        servers="stoker+asyncio,stoker+uvloop,uvicorn+uvloop,uvicorn-wsproto+uvloop,"
                                "granian-asgi,hypercorn,fastpysgi-asgi,peregrine-asgi"),
    **{f"gevent-{name}": Scenario(f"gevent: {title}", app=f"apps:{app}",
                                  servers=GEVENT + (",stoker" if app != "sleep1ms" else ""), **more)
       for name, title, app, more in [
           ("hello", "14 bytes", "hello", {}),
           ("c1", "14 bytes, 1 connection", "hello", {"connections": 1}),
           ("stream", "64 blocks of 1 kB", "stream", {}),
           ("sleep1ms", "the application waits 1 ms", "sleep1ms", {"pin": "none"}),
       ]},
    "fastapi": Scenario("FastAPI, 1 kB of JSON", app="app_fastapi:app", servers=ASGI, restarts=8),
    "memory": Scenario("PSS of a worker beyond a bare interpreter with the application",
                       kind="memory", pin="none"),
    "memory-flask": Scenario("PSS of a worker beyond a bare interpreter with the application "
                             "(Flask)", kind="memory", pin="none", app="app_flask:app"),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """A promise: figure of `ours` against `limit`, or against `limit` times a peer's figure."""

    scenario: str
    metric: str
    limit: float
    peer: str = ""  # "": an absolute limit; "best": the best peer; else a Spec
    ours: str = "stoker"
    at_least: bool = False
    minus: bool = False  # the difference to the peer, not the ratio
    base: str = ""  # the peer's scenario, where it is another one

    def text(self):
        """As a sentence: cpu_us ≤ 0.80 × bjoern."""
        sign = "≥" if self.at_least else "≤"
        if not self.peer:
            return f"{self.metric} {sign} {self.limit:g}"
        other = self.peer + (f" in {self.base}" if self.base else "")
        if self.minus:
            return f"{self.metric} {sign} {other} + {self.limit:g}"
        return f"{self.metric} {sign} {self.limit:.2f} × {other}"

    def name(self):
        """The same with whose figure it is, where that is not plain stoker."""
        return self.text() if self.ours == "stoker" else f"{self.ours}: {self.text()}"


def _cpu(scenario, **limits):
    return [Target(scenario, "cpu_us", limit, peer.replace("_", "-"))
            for peer, limit in limits.items()]


TARGETS = [
    *_cpu("hello", epoll=1.25, bjoern=0.80, fastpysgi=0.75, uwsgi=0.40, nginx=1.00,
          stoker_base=1.05),
    *_cpu("hello-browser", epoll=1.30, bjoern=0.65, fastpysgi=0.65, stoker_base=1.05),
    *_cpu("flask", bjoern=1.03, uwsgi=0.65, gunicorn_sync=0.40),
    Target("flask", "cpu_us", 0.40, "gunicorn-gthread+t4"),
    *_cpu("flask-c1", bjoern=1.03, uwsgi=0.65),
    Target("accesslog", "cpu_us", 0.5, "stoker+nolog", minus=True),
    Target("takeover", "cpu_us", 1.05, "stoker+notakeover"),
    Target("takeover-flask", "cpu_us", 1.05, "stoker+notakeover"),
    Target("takeover-t4", "cpu_us", 1.05, "stoker+t4+notakeover", ours="stoker+t4"),
    Target("sleep1ms", "rps", 3.8, "stoker", ours="stoker+t4", at_least=True),
    Target("flask-threads", "cpu_us", 1.10, "stoker", ours="stoker+t4"),
    *_cpu("body100k", uwsgi=0.90),
    *_cpu("body100k-c1", uwsgi=0.90),
    *_cpu("stream", best=0.60),
    Target("stream", "p50_ms", 5.0),
    Target("first-block", "first_ms", 5.0),
    *_cpu("post1M", fastpysgi=0.60, uwsgi=1.00),
    *_cpu("post1M-c1", fastpysgi=0.60, uwsgi=1.00),
    *_cpu("post10k", fastpysgi=0.75),
    Target("pipelined", "cpu_us", 0.25, "stoker", base="hello"),
    *_cpu("close", epoll=1.30),
    Target("idle10k", "bytes", 1024),
    Target("slowloris", "p99_ratio", 1.20),
    Target("fair", "p99_ratio", 1.5, ours="stoker+w2"),
    Target("fair", "closed", 0, ours="stoker+w2"),
    Target("startup", "ms", 60),
    Target("startup-flask", "ms", 60),
    Target("memory", "pss_mb", 2.0),
    Target("memory-flask", "pss_mb", 2.0),
    Target("compute2ms", "rps", 0.97, "stoker", ours="stoker+t4", at_least=True),
    Target("compute2ms", "p99_ms", 1.2, "stoker", ours="stoker+t4"),
    Target("c1", "cpu_us", 1.10, "stoker+notakeover"),
    Target("rate100", "cpu_us", 1.10, "stoker+notakeover"),
    Target("idle", "percent", 0.1, ours="stoker+w4"),
    *_cpu("uwsgi-pass", uwsgi=0.60, uwsgi_limit=1.25),
    *_cpu("uwsgi-pass-tcp", uwsgi=0.60, uwsgi_limit=1.25),
    *_cpu("proxy-keepalive", uwsgi=0.35),
    *_cpu("proxy-keepalive-tcp", uwsgi=0.35),
    *[Target(f"static-{name}", "cpu_us", limit, "nginx" + log, ours="stoker" + log)
      for name, limit in [("1k", 1.00), ("10k", 1.00), ("100k", 1.05), ("10m", 1.05)]
      for log in ("", "+nolog")],
    *[Target("asgi-hello", "cpu_us", 0.40, f"uvicorn+{loop}{log}", ours=f"stoker+{loop}")
      for loop in ("asyncio", "uvloop") for log in ("", "+nolog")],
    *[Target("asgi-hello", "cpu_us", 1.45, "epoll", ours=f"stoker+{loop}")
      for loop in ("asyncio", "uvloop")],
    *[Target("asgi-context", "cpu_us", 1.00, "eager-limit", ours=f"stoker+{loop}")
      for loop in ("asyncio", "uvloop")],
    *[Target(name, "cpu_us", 1.00, "best", ours="stoker+uvloop")
      for name in ("asgi-hello", "asgi-json", "asgi-echo10k", "asgi-body100k", "asgi-stream",
                   "asgi-sleep0", "fastapi")],
    *[Target("asgi-timer", "beyond_ms", 5.0, ours=f"stoker+{loop}")
      for loop in ("asyncio", "uvloop")],
    *[Target("ws-echo", "cpu_us", 0.667, "best", ours=f"stoker+{loop}")  # 1.5 times the messages
      for loop in ("asyncio", "uvloop")],
    *[Target("ws-idle", "bytes", 3072, ours=f"stoker+{loop}") for loop in ("asyncio", "uvloop")],
    *[Target(f"gevent-{name}", "cpu_us", limit, peer, ours="stoker+gevent")
      for name, limit in [("hello", 0.10), ("sleep1ms", 0.20)]
      for peer in ("gunicorn-gevent", "pywsgi", "uwsgi-gevent")],
    Target("gevent-hello", "cpu_us", 1.40, "stoker", ours="stoker+gevent"),
    # requests per CPU second at least 0.9 times nginx's
    *[Target(name, "cpu_us", 1.11, "nginx" + log, ours="stoker" + log)
      for name in ("tls", "tls-handshake") for log in ("", "+nolog")],
]
