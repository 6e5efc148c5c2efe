import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

done = []


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"word": "state"}


async def hello(request):
    return JSONResponse({"word": request.state.word, "path": request.url.path, "method": request.method})


async def echo(request):
    return JSONResponse({"got": await request.json()}, status_code=201)


async def upload(request):
    form = await request.form()
    return JSONResponse({"size": len(await form["file"].read())})


async def stream(request):
    async def lines():
        for number in range(100):
            yield "line %d\n" % number
            if number % 10 == 0:
                await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/plain")


async def wait(request):
    await asyncio.sleep(0.001)
    return PlainTextResponse("waited")


def threaded(request):
    return PlainTextResponse("from a thread")


async def background(request):
    async def task():
        await asyncio.sleep(0.001)
        done.append(1)

    return PlainTextResponse(str(len(done)), background=BackgroundTask(task))


async def file(request):
    return FileResponse(__file__)


async def broken(request):
    raise RuntimeError("broken in the application")


class Header(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["x-middleware"] = "yes"
        return response


app = Starlette(
    routes=[
        Route("/hello", hello),
        Route("/echo", echo, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/wait", wait),
        Route("/threaded", threaded),
        Route("/background", background),
        Route("/file", file),
        Route("/broken", broken),
    ],
    middleware=[Middleware(Header), Middleware(GZipMiddleware)],
    lifespan=lifespan,
)
