import asyncio

from litestar import Litestar, MediaType, Request, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import File, Response, Stream
from typing_extensions import Annotated

done = []
state = {}


async def begin():
    state["word"] = "state"


@get("/hello")
async def hello(request: Request) -> dict:
    return {"word": state["word"], "path": request.url.path, "method": request.method}


@post("/echo")
async def echo(request: Request) -> dict:
    return {"got": await request.json()}


@post("/upload", status_code=200)
async def upload(data: Annotated[UploadFile, Body(media_type=RequestEncodingType.MULTI_PART)]) -> dict:
    return {"size": len(await data.read())}


@get("/stream")
async def stream() -> Stream:
    async def lines():
        for number in range(100):
            yield "line %d\n" % number
            if number % 10 == 0:
                await asyncio.sleep(0)

    return Stream(lines(), media_type="text/plain")


@get("/wait", media_type=MediaType.TEXT)
async def wait() -> str:
    await asyncio.sleep(0.001)
    return "waited"


@get("/threaded", media_type=MediaType.TEXT, sync_to_thread=True)
def threaded() -> str:
    return "from a thread"


@get("/background", media_type=MediaType.TEXT)
async def background() -> Response:
    return Response(str(len(done)), media_type=MediaType.TEXT, background=BackgroundTask(done.append, 1))


@get("/file")
async def file() -> File:
    return File(__file__)


@get("/broken")
async def broken() -> str:
    raise RuntimeError("broken in the application")


app = Litestar([hello, echo, upload, stream, wait, threaded, background, file, broken], on_startup=[begin])
