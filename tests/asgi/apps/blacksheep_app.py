import asyncio

from blacksheep import Application, Content, Request, Response, StreamedContent, json, text

app = Application()
state = {}


@app.on_start
async def begin(application):
    state["word"] = "state"


@app.router.get("/hello")
async def hello(request: Request):
    return json({"word": state["word"], "path": request.url.path.decode(), "method": request.method})


@app.router.post("/echo")
async def echo(request: Request):
    return json({"got": await request.json()}, 201)


@app.router.post("/upload")
async def upload(request: Request):
    (part,) = await request.files("file")
    data = part.data if isinstance(part.data, bytes) else part.file.read()
    return json({"size": len(data)})


@app.router.get("/stream")
async def stream():
    async def lines():
        for number in range(100):
            yield ("line %d\n" % number).encode()
            if number % 10 == 0:
                await asyncio.sleep(0)

    return Response(200, content=StreamedContent(b"text/plain", lines))


@app.router.get("/wait")
async def wait():
    await asyncio.sleep(0.001)
    return text("waited")


@app.router.get("/threaded")
async def threaded():
    return text(await asyncio.get_running_loop().run_in_executor(None, lambda: "from a thread"))


@app.router.get("/broken")
async def broken():
    raise RuntimeError("broken in the application")
