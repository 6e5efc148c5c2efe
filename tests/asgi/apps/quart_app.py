import asyncio

from quart import Quart, jsonify, request, send_file

app = Quart(__name__)
done = []
state = {}


@app.before_serving
async def begin():
    state["word"] = "state"


@app.get("/hello")
async def hello():
    return jsonify(word=state["word"], path=request.path, method=request.method)


@app.post("/echo")
async def echo():
    return {"got": await request.get_json()}, 201


@app.post("/upload")
async def upload():
    files = await request.files
    return {"size": len(files["file"].read())}


@app.get("/stream")
async def stream():
    async def lines():
        for number in range(100):
            yield ("line %d\n" % number).encode()
            if number % 10 == 0:
                await asyncio.sleep(0)

    return lines(), {"Content-Type": "text/plain"}


@app.get("/wait")
async def wait():
    await asyncio.sleep(0.001)
    return "waited"


@app.get("/threaded")
def threaded():
    return "from a thread"


@app.get("/background")
async def background():
    async def task():
        done.append(1)

    app.add_background_task(task)
    return str(len(done))


@app.get("/file")
async def file():
    return await send_file(__file__)


@app.get("/broken")
async def broken():
    raise RuntimeError("broken in the application")
