"""Tells what of a request reached the application, so that tests of the wire can see it. Each answer names its worker."""

import hashlib
import json
import os
import sys
import time
from urllib.parse import parse_qs
from wsgiref.validate import validator

BLOCK = 64 * 1024


def application(environ, start_response):
    handler = ROUTES.get(environ["PATH_INFO"], environment)
    status, fields, body = handler(environ, parse_qs(environ.get("QUERY_STRING", "")))
    start_response(status, [("X-Worker", str(os.getpid()))] + fields)
    return body


def text(body, status="200 OK"):
    fields = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    return status, fields, [body]


def number(query, name, default=0):
    return int(query.get(name, [default])[0])


def hello(environ, query):
    return text(b"hello\n")


def environment(environ, query):
    """The environ's strings as JSON, with the body and what else is worth knowing."""
    seen = {key: value for key, value in environ.items() if isinstance(value, str)}
    seen["flags"] = {key: environ[key] for key in ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once")}
    seen["version"] = list(environ["wsgi.version"])
    seen["exact dict"] = type(environ) is dict
    seen["body"] = environ["wsgi.input"].read(-1).decode("latin-1")
    seen["argv"] = sys.argv
    return "200 OK", [("Content-Type", "application/json")], [json.dumps(seen).encode()]


def echo(environ, query):
    return text(environ["wsgi.input"].read(-1))


def digest(environ, query):
    length, found = 0, hashlib.sha256()
    while True:
        block = environ["wsgi.input"].read(BLOCK)
        if not block:
            break
        length += len(block)
        found.update(block)
    return text(b"%d %s" % (length, found.hexdigest().encode()))


def unread(environ, query):
    return text(b"unread\n")


def partly(environ, query):
    return text(environ["wsgi.input"].read(number(query, "n", 5)))


def no_content(environ, query):
    return "204 No Content", [], []


def not_modified(environ, query):
    return "304 Not Modified", [("ETag", '"x"'), ("Content-Length", "5")], []


def no_length(environ, query):
    return "200 OK", [("Content-Type", "text/plain")], iter([b"one ", b"", b"two ", b"three"])


def big(environ, query):
    """`n` bytes, zeros, in blocks; `length=0` leaves the Content-Length out."""
    size = number(query, "n", BLOCK)
    fields = [("Content-Type", "application/octet-stream")]
    if number(query, "length", 1):
        fields.append(("Content-Length", str(size)))
    return "200 OK", fields, blocks(size)


def blocks(size):
    block = bytes(BLOCK)
    while size > 0:
        yield block[:size]
        size -= len(block)


def sleep(environ, query):
    time.sleep(number(query, "ms") / 1000)
    return text(b"slept\n")


def redirect(environ, query):
    return "302 Found", [("Location", "/elsewhere?a=%2F"), ("Content-Length", "0")], []


def failing(environ, query):
    raise RuntimeError("this was to happen")


def broken(environ, query):
    """Fails in the middle of its body; `length=1` has announced twice as much as there is, `pause=1` lets the first half go first."""
    fields = [("Content-Type", "text/plain")]
    if number(query, "length"):
        fields.append(("Content-Length", str(2 * BLOCK)))
    return "200 OK", fields, break_off(0.3 * number(query, "pause"))


def break_off(pause):
    yield bytes(BLOCK)
    time.sleep(pause)
    raise RuntimeError("this was to happen")


def drip(environ, query):
    """`n` blocks of one byte, with pauses."""
    return "200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")], drops(number(query, "n", 3))


def drops(count):
    for _ in range(count):
        yield b"."
        time.sleep(0.2)


class Endless:
    """Blocks without end. Notes in a file that it has begun, in which process, and that it was closed."""

    def __init__(self, path):
        self.path = path

    def note(self, text):
        with open(self.path, "a") as notes:
            notes.write(text)

    def __iter__(self):
        self.note("%d\n" % os.getpid())
        while True:
            yield b"." * 1000
            time.sleep(0.01)

    def close(self):
        self.note("closed\n")


def endless(environ, query):
    return "200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")], Endless(query["note"][0])


ROUTES = {
    "/": hello,
    "/endless": endless,
    "/big": big,
    "/broken": broken,
    "/digest": digest,
    "/drip": drip,
    "/echo": echo,
    "/failing": failing,
    "/no-content": no_content,
    "/no-length": no_length,
    "/not-modified": not_modified,
    "/partly": partly,
    "/redirect": redirect,
    "/sleep": sleep,
    "/unread": unread,
}

validated = validator(application)
