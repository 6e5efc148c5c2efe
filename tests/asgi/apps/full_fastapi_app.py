"""FastAPI with what its applications are made of: dependencies that clean up, tasks behind the response, streams,
WebSockets with dependencies, lifespan, sub-applications; and sse-starlette."""

import asyncio
import contextlib
import json

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from sse_starlette.sse import EventSourceResponse

events = []


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.ready = True
    feeder = asyncio.create_task(feed())
    yield {"word": "state", "listeners": listeners}
    feeder.cancel()
    print("lifespan: over", flush=True)


listeners = set()


async def feed():
    number = 0
    while True:
        await asyncio.sleep(0.05)
        number += 1
        for queue in listeners:
            queue.put_nowait(number)


app = FastAPI(lifespan=lifespan)


async def resource(request: Request):
    events.append("open")
    try:
        yield request.state.word
    except Exception as error:
        events.append("saw " + type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0)
        events.append("closed")


def threaded(word: str = Depends(resource)):
    yield word.upper()
    events.append("thread closed")


@app.get("/depends")
async def depends(word: str = Depends(threaded)):
    events.append("handled")
    return {"word": word}


@app.get("/fails")
async def fails(word: str = Depends(resource)):
    raise HTTPException(418, "short and stout")


@app.get("/events_log")
async def events_log(clear: bool = False):
    found = list(events)
    if clear:
        events.clear()
    return found


@app.post("/tasks")
async def tasks(tasks: BackgroundTasks, word: str = Depends(resource)):
    async def late(number):
        await asyncio.sleep(0.01)
        events.append("late %d" % number)

    tasks.add_task(late, 1)
    tasks.add_task(late, 2)
    tasks.add_task(events.append, "from a thread")
    return "begun"


@app.get("/numbers")
async def numbers(request: Request, count: int):
    async def lines():
        try:
            for number in range(count):
                yield json.dumps({"number": number}) + "\n"
                await asyncio.sleep(0.001)
        finally:
            events.append("stream over")

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@app.post("/both")
async def both(request: Request):
    """Answers while it reads."""

    async def sizes():
        async for block in request.stream():
            if block:
                yield "%d\n" % len(block)
        yield "end\n"

    return StreamingResponse(sizes(), media_type="text/plain")


@app.get("/sse")
async def sse(request: Request):
    queue = asyncio.Queue()
    listeners.add(queue)

    async def messages():
        try:
            while True:
                number = await queue.get()
                yield {"event": "tick", "id": str(number), "data": json.dumps({"number": number})}
        finally:
            listeners.discard(queue)
            events.append("listener left")

    return EventSourceResponse(messages(), ping=1)


async def token(websocket: WebSocket, token: str = ""):
    if token == "no":
        raise HTTPException(403)
    return token


router = APIRouter(prefix="/ws")


@router.websocket("/{room}")
async def socket(websocket: WebSocket, room: str, token: str = Depends(token)):
    await websocket.accept()
    try:
        while True:
            data = await websocket.receive_json()
            if data == "close":
                await websocket.close(4000, "as you like")
                return
            await websocket.send_json({"room": room, "token": token, "data": data})
    except WebSocketDisconnect as error:
        events.append("disconnect %d" % error.code)


app.include_router(router)
sub = FastAPI()


@sub.get("/where")
async def where(request: Request):
    return {"root_path": request.scope["root_path"], "url": str(request.url_for("where").path)}


app.mount("/sub", sub)
