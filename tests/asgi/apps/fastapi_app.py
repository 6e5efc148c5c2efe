import asyncio
import contextlib
from typing import List

from fastapi import BackgroundTasks, Depends, FastAPI, Request, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel

done = []


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"word": "state"}


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    tags: List[str] = []


async def word(request: Request):
    yield request.state.word


@app.get("/hello")
async def hello(request: Request, word: str = Depends(word)):
    return {"word": word, "path": request.url.path, "method": request.method}


@app.post("/echo", status_code=201)
async def echo(item: Item):
    return {"got": item}


@app.post("/upload")
async def upload(file: UploadFile):
    return {"size": len(await file.read())}


@app.get("/stream")
async def stream():
    async def lines():
        for number in range(100):
            yield "line %d\n" % number
            if number % 10 == 0:
                await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/wait", response_class=PlainTextResponse)
async def wait():
    await asyncio.sleep(0.001)
    return "waited"


@app.get("/threaded", response_class=PlainTextResponse)
def threaded():
    return "from a thread"


@app.get("/background", response_class=PlainTextResponse)
async def background(tasks: BackgroundTasks):
    tasks.add_task(done.append, 1)
    return str(len(done))


@app.get("/file")
async def file():
    return FileResponse(__file__)


@app.get("/broken")
async def broken():
    raise RuntimeError("broken in the application")
