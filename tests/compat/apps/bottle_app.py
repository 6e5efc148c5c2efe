"""A small Bottle application."""

import sys
from pathlib import Path

import bottle

app = bottle.Bottle()


@app.get("/")
def index():
    return bottle.template("<p>{{text}}</p>", text="<Bottle> \u20ac")


@app.post("/form")
def form():
    bottle.response.set_cookie("text", bottle.request.forms.text, secret="only for tests")
    bottle.redirect("/cookie")


@app.get("/cookie")
def cookie():
    return {"text": bottle.request.get_cookie("text", secret="only for tests")}


@app.post("/upload")
def upload():
    sent = bottle.request.files.get("file")
    return {"name": sent.raw_filename, "size": len(sent.file.read())}


@app.get("/stream")
def stream():
    bottle.response.content_type = "text/plain"
    for number in range(100):
        yield "line %d\n" % number


@app.get("/file")
def file():
    path = Path(sys.executable).resolve()
    return bottle.static_file(path.name, root=str(path.parent), mimetype="application/octet-stream")


@app.get("/broken")
def broken():
    raise RuntimeError("broken in Bottle")


@app.get("/hello/<name>")
def hello(name):
    return "hello " + name
