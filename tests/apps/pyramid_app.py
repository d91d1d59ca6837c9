"""Pyramid: hello, and the body that WebOb reads."""

from pyramid.config import Configurator
from pyramid.response import Response


def hello(request):
    return Response("Hello from Pyramid")


def body(request):
    return Response(request.body)


with Configurator() as config:
    config.add_route("hello", "/")
    config.add_view(hello, route_name="hello")
    config.add_route("body", "/body")
    config.add_view(body, route_name="body")
    app = config.make_wsgi_app()
