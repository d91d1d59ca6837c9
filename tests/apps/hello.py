"""The smallest useful application: the one that benchmarks and load tests ask."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello World!\n"]
