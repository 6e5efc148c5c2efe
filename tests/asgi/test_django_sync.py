"""Django's ASGI handler with views that are no coroutines: it runs each request's in a thread of its own."""

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.life.steady import wait_until

MANY = 20

APP = """
import asyncio
import threading

from django.conf import settings

settings.configure(
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
)

from django.core.asgi import get_asgi_application
from django.core.signals import request_finished, request_started
from django.db import connection
from django.db.backends.signals import connection_created
from django.http import HttpResponse, JsonResponse
from django.urls import path

meeting = threading.Barrier(%d)
held = threading.Event()
signals = {"started": 0, "finished": 0}
lock = threading.Lock()
connections = []


def count(name):
    def receiver(**kwargs):
        with lock:
            signals[name] += 1
    return receiver


started, finished = count("started"), count("finished")
request_started.connect(started)
request_finished.connect(finished)


def created(connection, **kwargs):
    connections.append(connection)


connection_created.connect(created)


def query():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def meet(request):
    # All are here at once, or none goes on.
    meeting.wait(30)
    query()
    return HttpResponse(threading.current_thread().name)


def hold(request):
    query()
    held.wait(30)
    return HttpResponse("held")


async def coroutine(request):
    await asyncio.sleep(0)
    return HttpResponse(threading.current_thread().name)


async def let_go(request):
    held.set()
    return HttpResponse("let go")


async def state(request):
    return JsonResponse(dict(signals, open=sum(c.connection is not None for c in connections), made=len(connections)))


urlpatterns = [path(view.__name__, view) for view in (meet, hold, coroutine, let_go, state)]
app = get_asgi_application()
""" % MANY


@pytest.fixture(params=LOOPS)
def server(request, serve):
    pytest.importorskip("django")
    return serve(APP, "-w", "1", "--loop", request.param)


def test_many_at_once_beside_coroutines(server):
    conns = [server.connect() for _ in range(MANY)]
    for conn in conns:
        conn.send(get(target="/meet"))
    names = {conn.read_response().text for conn in conns}
    assert len(names) == MANY and "MainThread" not in names
    for conn in conns[:5]:
        conn.send(get(target="/hold"))
    wait_until(lambda: server.get("/state").json()["started"] > MANY + 5)
    for _ in range(10):
        assert server.get("/coroutine").text == "MainThread"
    assert server.get("/let_go").text == "let go"
    for conn in conns[:5]:
        assert conn.read_response().text == "held"
    for conn in conns:
        conn.close()


def test_signals_and_connections(server):
    with server.connect() as conn:
        for _ in range(3):
            for path in ("/coroutine", "/let_go", "/hold"):
                assert server.get(path, conn=conn).status == 200

    def is_settled():
        # This one has begun and not ended; the databases are closed with their requests.
        found = server.get("/state").json()
        return found["finished"] == found["started"] - 1 and (found["made"], found["open"]) == (3, 0)

    wait_until(is_settled)
