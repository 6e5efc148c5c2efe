import asyncio

import falcon.asgi

state = {}


class Begin:
    async def process_startup(self, scope, event):
        state["word"] = "state"


class Hello:
    async def on_get(self, req, resp):
        resp.media = {"word": state["word"], "path": req.path, "method": req.method}


class Echo:
    async def on_post(self, req, resp):
        resp.media = {"got": await req.get_media()}
        resp.status = 201


class Upload:
    async def on_post(self, req, resp):
        form = await req.get_media()
        async for part in form:
            resp.media = {"size": len(await part.get_data())}


class Stream:
    async def on_get(self, req, resp):
        async def lines():
            for number in range(100):
                yield ("line %d\n" % number).encode()
                if number % 10 == 0:
                    await asyncio.sleep(0)

        resp.content_type = "text/plain"
        resp.stream = lines()


class Wait:
    async def on_get(self, req, resp):
        await asyncio.sleep(0.001)
        resp.text = "waited"


class Threaded:
    async def on_get(self, req, resp):
        resp.text = await asyncio.get_running_loop().run_in_executor(None, lambda: "from a thread")


class Broken:
    async def on_get(self, req, resp):
        raise RuntimeError("broken in the application")


app = falcon.asgi.App(middleware=[Begin()])
for resource in (Hello, Echo, Upload, Stream, Wait, Threaded, Broken):
    app.add_route("/" + resource.__name__.lower(), resource())
