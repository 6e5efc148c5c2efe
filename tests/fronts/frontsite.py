"""The Django application behind every front end: it tells what reached it.

One file without models, so that a server of it starts at once. It is served with one worker and
several threads; what it remembers is in the process.
"""

import threading
import zlib

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
)

BLOCK = bytes(range(256)) * 256  # 64 KiB
uploads = []  # names of the uploads that the application was called for
closed = []  # names of the streams that were closed
go = threading.Event()


@csrf_exempt
def tell(request, rest=""):
    """What a front end has to hand on, as JSON."""
    fields = {
        name: value
        for name, value in request.headers.items()
        if name.startswith("X-Test") or name in ("Accept", "User-Agent", "If-None-Match", "Range")
    }
    return JsonResponse(
        {
            "method": request.method,
            "script": request.META["SCRIPT_NAME"],
            "path": request.path_info,
            "query": request.META["QUERY_STRING"],
            "uri": request.META["REQUEST_URI"],
            "arguments": {name: request.GET.getlist(name) for name in request.GET},
            "cookies": request.COOKIES,
            "fields": fields,
            "absolute": request.build_absolute_uri(),
            "host": request.META["HTTP_HOST"],
            "scheme": request.META["wsgi.url_scheme"],
            "secure": request.is_secure(),
            "address": request.META["REMOTE_ADDR"],
            "type": request.META.get("CONTENT_TYPE", ""),
            "length": request.META.get("CONTENT_LENGTH", ""),
            "body": request.body.decode("latin-1"),
            "proxy": "HTTP_PROXY" in request.META,
        }
    )


@csrf_exempt
def upload(request, name):
    """Size and checksum of the body, read in parts."""
    uploads.append(name)
    size = crc = 0
    while block := request.read(65536):
        size += len(block)
        crc = zlib.crc32(block, crc)
    return JsonResponse({"size": size, "crc": crc})


def blocks(request, count):
    """So many blocks of 64 KiB with a Content-Length."""
    return HttpResponse(BLOCK * count, content_type="application/octet-stream")


def stream(request, name, count):
    """The same without a length, and remembered when it is closed."""

    def generate():
        try:
            for _ in range(count):
                yield BLOCK
        finally:
            closed.append(name)

    return StreamingHttpResponse(generate(), content_type="application/octet-stream")


def cut(request, count):
    """Ends with an error before it is complete."""

    def generate():
        for _ in range(count):
            yield BLOCK
        raise OSError("what was to come is not there")

    return StreamingHttpResponse(generate(), content_type="application/octet-stream")


def events(request):
    """A block, and a second one when another request has asked for it."""

    def generate():
        yield b"data: first\n\n"
        yield b"data: second\n\n" if go.wait(20) else b"data: nobody came\n\n"

    go.clear()
    response = StreamingHttpResponse(generate(), content_type="text/event-stream")
    response["X-Accel-Buffering"] = "no"
    return response


def release(request):
    go.set()
    return HttpResponse("released")


def fields(request, size):
    """A large head: one field of that size, two cookies."""
    response = HttpResponse("fields")
    response["X-Large"] = "x" * size
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


urlpatterns = [
    path("tell", tell),
    re_path("^tell/(?P<rest>.*)$", tell),
    path("upload/<name>", upload),
    path("blocks/<int:count>", blocks),
    path("stream/<name>/<int:count>", stream),
    path("cut/<int:count>", cut),
    path("events", events),
    path("release", release),
    path("fields/<int:size>", fields),
    path("redirect", lambda request: HttpResponseRedirect("/tell/there?x=1")),
    path("empty", csrf_exempt(lambda request: HttpResponse(status=204))),
    path("unchanged", lambda request: HttpResponse(status=304, headers={"ETag": '"x"'})),
    path("missing", lambda request: HttpResponse("not here", status=404, content_type="text/plain")),
    path("remembered", lambda request: JsonResponse({"uploads": uploads, "closed": closed})),
    path("", lambda request: HttpResponse("front")),
]

application = get_wsgi_application()
