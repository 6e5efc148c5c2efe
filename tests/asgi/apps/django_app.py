import asyncio
import json

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(DEBUG=False, SECRET_KEY="tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])


async def hello(request):
    return JsonResponse({"word": "state", "path": request.path, "method": request.method})


@csrf_exempt
async def echo(request):
    return JsonResponse({"got": json.loads(request.body)}, status=201)


@csrf_exempt
async def upload(request):
    return JsonResponse({"size": len(request.FILES["file"].read())})


async def stream(request):
    async def lines():
        for number in range(100):
            yield "line %d\n" % number
            if number % 10 == 0:
                await asyncio.sleep(0)

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def wait(request):
    await asyncio.sleep(0.001)
    return HttpResponse("waited")


def threaded(request):
    return HttpResponse("from a thread")


async def file(request):
    return FileResponse(open(__file__, "rb"))


async def broken(request):
    raise RuntimeError("broken in the application")


urlpatterns = [path(view.__name__, view) for view in (hello, echo, upload, stream, wait, threaded, file, broken)]
app = get_asgi_application()
