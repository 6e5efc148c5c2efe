"""Starlette with its own middleware around everything: sessions, BaseHTTPMiddleware, GZip, trusted hosts; static files,
files with ranges, an endpoint as a class for WebSockets."""

import asyncio
import os
import tempfile
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

FOLDER = Path(tempfile.mkdtemp(prefix="stoker-files-"))
(FOLDER / "large.bin").write_bytes(bytes(range(256)) * 8192)
(FOLDER / "page.html").write_text("<h1>static</h1>")
left = []


async def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return JSONResponse(request.session["count"])


class Upload(HTTPEndpoint):
    async def post(self, request):
        size = 0
        async for block in request.stream():
            size += len(block)
        return PlainTextResponse(str(size))


async def file(request):
    tasks = BackgroundTasks()
    tasks.add_task(left.append, "file sent")
    return FileResponse(FOLDER / "large.bin", background=tasks)


async def endless(request):
    async def blocks():
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            left.append("stream over")

    return StreamingResponse(blocks())


async def log(request):
    return JSONResponse(left)


class Echo(WebSocketEndpoint):
    encoding = "json"

    async def on_receive(self, websocket, data):
        await websocket.send_json({"echo": data, "session": dict(websocket.session)})

    async def on_disconnect(self, websocket, close_code):
        left.append("closed %d" % close_code)


class Timing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        if request.url.path == "/shortcut":
            return PlainTextResponse("from the middleware")
        response = await call_next(request)
        response.headers["x-pid"] = str(os.getpid())
        return response


app = Starlette(
    routes=[
        Route("/count", count),
        Route("/upload", Upload),
        Route("/file", file),
        Route("/endless", endless),
        Route("/log", log),
        WebSocketRoute("/echo", Echo),
        Mount("/static", StaticFiles(directory=FOLDER, html=True)),
    ],
    middleware=[
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
        Middleware(CORSMiddleware, allow_origins=["https://elsewhere.example"]),
        Middleware(SessionMiddleware, secret_key="tests"),
        Middleware(Timing),
    ],
)
