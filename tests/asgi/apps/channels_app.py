"""Django Channels: consumers of both kinds, groups in a channel layer, sessions, and Django's own views."""

import asyncio
import os

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware"],
    INSTALLED_APPS=["django.contrib.sessions", "channels"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

from asgiref.sync import async_to_sync  # noqa: E402
from channels.generic.http import AsyncHttpConsumer  # noqa: E402
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.sessions import SessionMiddlewareStack  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path, re_path  # noqa: E402

left = []


class Echo(WebsocketConsumer):
    """In a thread."""

    def connect(self):
        self.accept("v1" if "v1" in self.scope["subprotocols"] else None)

    def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            self.close(code=4321)
        else:
            self.send(text_data=text_data, bytes_data=bytes_data)

    def disconnect(self, code):
        left.append(code)


class AsyncEcho(AsyncWebsocketConsumer):
    async def connect(self):
        if self.scope["query_string"] == b"no":
            await self.close()
        else:
            await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        await asyncio.sleep(0)
        await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code):
        left.append(code)


class Room(AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive_json(self, content):
        await self.channel_layer.group_send(self.room, {"type": "room.said", "text": content["say"]})

    async def room_said(self, event):
        await self.send_json({"said": event["text"]})


class Visits(WebsocketConsumer):
    """The session that Django's view has begun."""

    def connect(self):
        self.accept()
        self.send(str(self.scope["session"].get("visits")))


class Events(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_headers(headers=[(b"Content-Type", b"text/event-stream")])
        for number in range(3):
            await self.send_body(b"data: %d\n\n" % number, more_body=True)
            await asyncio.sleep(0.01)
        await self.send_body(b"")


async def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse("%d" % request.session["visits"])


def say(request):
    """A view in a thread that tells the group of a room."""
    async_to_sync(get_channel_layer().group_send)(request.GET["room"], {"type": "room.said", "text": request.GET["text"]})
    return HttpResponse("said")


async def codes(request):
    return HttpResponse(" ".join(map(str, left)))


def slow_lines(request):
    """A synchronous generator, which Django turns in a thread."""
    return StreamingHttpResponse(("line %d of %d\n" % (number, os.getpid()) for number in range(50)), content_type="text/plain")


urlpatterns = [path(view.__name__, view) for view in (visit, say, codes, slow_lines)]
sockets = [
    path("echo", Echo.as_asgi()),
    path("async", AsyncEcho.as_asgi()),
    path("visits", Visits.as_asgi()),
    re_path(r"^room/(?P<room>\w+)$", Room.as_asgi()),
]
django_app = get_asgi_application()
app = ProtocolTypeRouter(
    {
        "http": URLRouter([path("events", Events.as_asgi()), re_path("", django_app)]),
        "websocket": SessionMiddlewareStack(URLRouter(sockets)),
    }
)
