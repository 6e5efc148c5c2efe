from django.contrib import admin

from djangosite.models import Note

admin.site.register(Note)
