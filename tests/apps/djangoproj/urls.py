from django.contrib import admin
from django.urls import path

from . import views

urlpatterns = [
    path("", views.hello),
    path("admin/", admin.site.urls),
    path("upload/", views.upload),
    path("raw/", views.raw),
    path("stream/", views.stream),
    path("stream-closed/", views.stream_closed),
    path("download/", views.download),
    path("range/", views.ranged),
    path("fail/", views.fail),
]
