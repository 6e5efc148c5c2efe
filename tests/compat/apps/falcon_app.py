"""A small Falcon application."""

import sys

import falcon


class Media:
    def on_get(self, req, resp):
        resp.media = {"falcon": req.params, "scheme": req.scheme, "remote": req.remote_addr}

    def on_post(self, req, resp):
        resp.media = {"received": req.media}
        resp.status = falcon.HTTP_201


class Upload:
    def on_post(self, req, resp):
        resp.media = [
            {"name": part.filename, "size": len(part.stream.read())} for part in req.media
        ]


class Raw:
    def on_put(self, req, resp):
        resp.data = req.bounded_stream.read()
        resp.content_type = "application/octet-stream"


class Stream:
    def on_get(self, req, resp):
        resp.content_type = "text/plain"
        resp.stream = (b"line %d\n" % number for number in range(100))


class File:
    def on_get(self, req, resp):
        resp.content_type = "application/octet-stream"
        resp.stream = open(sys.executable, "rb")


class Broken:
    def on_get(self, req, resp):
        raise RuntimeError("broken in Falcon")


app = falcon.App()
app.add_route("/media", Media())
app.add_route("/upload", Upload())
app.add_route("/raw", Raw())
app.add_route("/stream", Stream())
app.add_route("/file", File())
app.add_route("/broken", Broken())
