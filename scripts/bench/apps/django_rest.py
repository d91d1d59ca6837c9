"""Django with its admin and the REST framework, without a database: what a project imports, and two pages of it."""

import gc
import os

from django.conf import settings

settings.configure(
    SECRET_KEY="benchmark",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    STATIC_URL="/static/",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "rest_framework",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "DEFAULT_PERMISSION_CLASSES": []},
)

from django.core.wsgi import get_wsgi_application  # noqa: E402  The settings come first.

application = get_wsgi_application()

from django.contrib import admin  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework import serializers, viewsets  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.routers import SimpleRouter  # noqa: E402


class Item(serializers.Serializer):
    name = serializers.CharField(max_length=100)
    price = serializers.DecimalField(max_digits=8, decimal_places=2)
    tags = serializers.ListField(child=serializers.CharField())


class Items(viewsets.ViewSet):
    def list(self, request):
        items = [{"name": f"item {number}", "price": number, "tags": ["a", "b"]} for number in range(20)]
        return Response(Item(items, many=True).data)


def pid(request):
    return HttpResponse(str(os.getpid()), content_type="text/plain")


def collect(request):
    """A full collection, and whose process that was."""
    gc.collect()
    return pid(request)


def health(request):
    """What a deployment would ask first: both pages."""
    for page in (admin.site.login(request), Items.as_view({"get": "list"})(request)):
        page.render()
    return pid(request)


router = SimpleRouter()
router.register("items", Items, basename="item")
urlpatterns = [path("", pid), path("collect", collect), path("healthz", health), path("admin/", admin.site.urls), *router.urls]
# The first request would load it.
import django.urls  # noqa: E402

django.urls.get_resolver().url_patterns
