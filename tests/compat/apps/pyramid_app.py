"""A small Pyramid application."""

import sys

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import FileResponse, Response
from pyramid.session import SignedCookieSessionFactory


def index(request):
    return Response("<p>Pyramid \u20ac</p>")


def form(request):
    request.session["text"] = request.POST["text"]
    return HTTPFound(request.route_url("session"))


def session(request):
    return {"text": request.session.get("text")}


def upload(request):
    sent = request.POST["file"]
    return {"name": sent.filename, "size": len(sent.file.read())}


def echo(request):
    return {"method": request.method, "json": request.json_body}


def stream(request):
    blocks = (b"line %d\n" % number for number in range(100))
    return Response(app_iter=blocks, content_type="text/plain")


def file(request):
    return FileResponse(sys.executable, request=request, content_type="application/octet-stream")


def broken(request):
    raise RuntimeError("broken in Pyramid")


def main():
    factory = SignedCookieSessionFactory("only for tests")
    with Configurator(session_factory=factory) as config:
        for view, renderer in (
            (form, None), (session, "json"), (upload, "json"), (echo, "json"), (stream, None), (file, None), (broken, None),
        ):  # fmt: skip
            config.add_route(view.__name__, "/" + view.__name__)
            config.add_view(view, route_name=view.__name__, renderer=renderer)
        config.add_route("index", "/")
        config.add_view(index, route_name="index")
        return config.make_wsgi_app()
