"""The views of the site."""

import hashlib
import sys

from django import forms
from django.contrib import admin
from django.db import connection
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from djangosite.models import Note


class NoteForm(forms.ModelForm):
    class Meta:
        model = Note
        fields = ["text"]


def notes(request):
    """A form with CSRF protection, and what was written by it."""
    form = NoteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect("/notes")
    template = engines["django"].from_string(
        "<form method=post>{% csrf_token %}{{ form }}</form>"
        "{% for note in notes %}<p>{{ note.text }}</p>{% endfor %}"
    )
    found = Note.objects.order_by("-id")[:50]
    return HttpResponse(template.render({"form": form, "notes": found}, request))


def count(request):
    return JsonResponse({"notes": Note.objects.count(), "connection": id(connection.connection)})


@csrf_exempt
def upload(request):
    sent = request.FILES["file"]
    digest = hashlib.sha256()
    for block in sent.chunks():
        digest.update(block)
    return JsonResponse({"name": sent.name, "size": sent.size, "sha256": digest.hexdigest()})


@csrf_exempt
def raw(request):
    """The body by request.read(), in parts."""
    digest = hashlib.sha256()
    size = 0
    while block := request.read(10_007):
        digest.update(block)
        size += len(block)
    return JsonResponse({"size": size, "sha256": digest.hexdigest()})


def stream(request):
    return StreamingHttpResponse(("line %d\n" % number for number in range(1000)), content_type="text/plain")


def file(request):
    return FileResponse(open(sys.executable, "rb"), as_attachment=True, filename="python")


def broken(request):
    raise RuntimeError("broken in Django")


def url(request):
    return JsonResponse({"url": request.build_absolute_uri(), "secure": request.is_secure()})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("notes", notes),
    path("count", count),
    path("upload", upload),
    path("raw", raw),
    path("stream", stream),
    path("file", file),
    path("broken", broken),
    path("url", url),
    path("", lambda request: HttpResponse("Django")),
]
