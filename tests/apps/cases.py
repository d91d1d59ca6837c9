"""PEP 3333, one case a path. Tests see what happened by the answer, by files in CASES_DIR, and in the error log."""

import io
import os
import signal
import sys
import threading
import time
from urllib.parse import parse_qs
from wsgiref.validate import validator

from notes import Notes

NOTES = Notes("CASES_DIR")
TEXT = [("Content-Type", "text/plain")]


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").replace("-", "_")
    case = CASES.get(name)
    if case is None:
        start_response("404 Not Found", TEXT)
        return [b"no such case"]
    return case(environ, start_response)


validated = validator(application)
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def note(name, line="closed"):
    NOTES.note(name, line)


await_gate = NOTES.await_gate


class Closing:
    """An iterable that notes each call of its close()."""

    def __init__(self, blocks, name="closed"):
        self.blocks = iter(blocks)
        self.name = name

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        note(self.name)


@case
def pid(environ, start_response):
    start_response("200 OK", TEXT)
    return [str(os.getpid()).encode()]


# Streaming


@case
def gated(environ, start_response):
    start_response("200 OK", TEXT)

    def blocks():
        yield b"first"
        await_gate("gate")
        yield b"second"

    return blocks()


@case
def gated_write(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"first")
    await_gate("gate")
    write(b"second")
    return [b"third"]


@case
def write_with_length(environ, start_response):
    write = start_response("200 OK", TEXT + [("Content-Length", "9")])
    write(b"abc")
    write(b"")
    write(b"def")
    return [b"ghi"]


@case
def large_write(environ, start_response):
    write = start_response("200 OK", TEXT)
    for _ in range(100):
        write(b"x" * 100_000)
    return []


@case
def late_start(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"late"


@case
def empty_then_late(environ, start_response):
    """Empty blocks send no head, so that an error after them can still become a page."""
    start_response("200 OK", TEXT)
    yield b""
    try:
        raise ValueError("found while streaming")
    except ValueError:
        start_response("500 Changed", TEXT, sys.exc_info())
    yield b"changed"


@case
def endless(environ, start_response):
    start_response("200 OK", TEXT)

    def blocks():
        while True:
            yield b"x" * 50_000

    return Closing(blocks())


@case
def slow_endless(environ, start_response):
    """One small block whenever asked, with a pause: the client's leaving is seen by the event loop, not by a full buffer."""
    start_response("200 OK", TEXT)

    def blocks():
        while True:
            time.sleep(0.01)
            yield b"tick\n"

    return Closing(blocks())


@case
def closing(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing([b"one", b"two"])


@case
def closing_list(environ, start_response):
    """A list subclass with a close(): a fast way for lists must not forget it."""

    class Block(list):
        def close(self):
            note("closed")

    start_response("200 OK", TEXT)
    return Block([b"one"])


@case
def closing_broken(environ, start_response):
    start_response("200 OK", TEXT)

    def blocks():
        yield b"one"
        raise RuntimeError("broken in the middle")

    return Closing(blocks())


@case
def closing_raises(environ, start_response):
    class Raising(Closing):
        def close(self):
            super().close()
            raise RuntimeError("close() raised")

    start_response("200 OK", TEXT + [("Content-Length", "3")])
    return Raising([b"one"])


# Status, fields, errors


@case
def exc_info(environ, start_response):
    start_response("200 OK", TEXT + [("X-First", "1")])
    try:
        raise ValueError("caught")
    except ValueError:
        start_response("503 Later", TEXT + [("X-Second", "1")], sys.exc_info())
    return [b"replaced"]


@case
def exc_info_late(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"already sent"
    try:
        raise ValueError("too late to replace")
    except ValueError:
        start_response("500 Late", TEXT, sys.exc_info())
    yield b"never sent"


@case
def start_twice(environ, start_response):
    start_response("200 OK", TEXT)
    start_response("200 OK", TEXT)
    return [b"never"]


@case
def fields(environ, start_response):
    start_response(
        "200 Very Well",
        [
            ("Content-Type", "text/plain"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("X-Latin", "caf\u00e9"),
            ("X-Empty", ""),
            ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("Server", "mine"),
        ],
    )
    return [b"fields"]


@case
def odd_status(environ, start_response):
    status = parse_qs(environ["QUERY_STRING"])["status"][0]
    start_response(status, TEXT)
    return [b"odd"]


@case
def bad_field(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    start_response("200 OK", TEXT + [(query["name"][0], query["value"][0])])
    return [b"bad"]


@case
def raises(environ, start_response):
    raise ValueError("raised before start_response")


@case
def raises_after_start(environ, start_response):
    start_response("200 OK", TEXT)
    raise ValueError("raised after start_response")


@case
def exits(environ, start_response):
    sys.exit(7)


@case
def interrupts(environ, start_response):
    raise KeyboardInterrupt


@case
def exits_in_body(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"one"
    raise SystemExit(7)


@case
def no_start(environ, start_response):
    return [b"nobody called start_response"]


@case
def returns_none(environ, start_response):
    start_response("200 OK", TEXT)


@case
def returns_str(environ, start_response):
    start_response("200 OK", TEXT)
    return "a bare str"


@case
def yields_str(environ, start_response):
    start_response("200 OK", TEXT)
    return ["a str block"]


@case
def returns_bytes(environ, start_response):
    """Allowed, if slow: an iterable of ints is not, so bytes need a clear answer, whatever it is."""
    start_response("200 OK", TEXT)
    return b"bare bytes"


@case
def too_long(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "4")])
    return [b"four", b"and more"]


@case
def too_short(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "100")])
    return [b"short"]


@case
def breaks_chunked(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"o"
    yield b"n"
    yield b"e"
    raise RuntimeError("broken in the middle")


@case
def breaks_length(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "100")])
    yield b"one"
    raise RuntimeError("broken in the middle")


# Input and errors


@case
def complain(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("first line\nsecond")
    errors.write(" line\n")
    errors.writelines(["third ", "line\n"])
    errors.write("forged\r\n2026-01-01T00:00:00.000+00:00 [1] [master] CRITICAL forged record\n")
    errors.write("without an end")
    errors.flush()
    print("printed to stderr", file=sys.stderr, flush=True)
    start_response("200 OK", TEXT)
    return [b"complained"]


@case
def reading(environ, start_response):
    """The body by every method of wsgi.input."""
    stream = environ["wsgi.input"]
    way = environ["QUERY_STRING"]
    if way == "read":
        parts = [stream.read(4), stream.read(0), stream.read(-1), stream.read(10), stream.read(-1)]
    elif way == "readline":
        parts = list(iter(stream.readline, b"")) + [stream.readline(), stream.read(5)]
    elif way == "readlines":
        parts = stream.readlines() + [stream.read(1)]
    elif way == "hint":
        parts = [b"".join(stream.readlines(1)), stream.read(-1)]
    elif way == "iterate":
        parts = list(stream) + [stream.read(1)]
    else:
        parts = [stream.readline(3), stream.read(2), stream.readline(), stream.read(3), b"".join(stream)]
    start_response("200 OK", TEXT)
    return [repr(parts).encode()]


@case
def read_all(environ, start_response):
    """read() without an argument, which the validator forbids and applications use."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", TEXT)
    return [body, environ["wsgi.input"].read()]


# Where the application runs


@case
def thread(environ, start_response):
    main = threading.current_thread() is threading.main_thread()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    import asyncio

    loop = asyncio.new_event_loop()
    value = loop.run_until_complete(asyncio.sleep(0, "ran"))
    loop.close()
    start_response("200 OK", TEXT)
    return [("%s %s" % (main, value)).encode()]


# Files


def size(environ):
    return int(os.environ.get("CASES_FILE_SIZE", "0"))


@case
def file(environ, start_response):
    """A real file from an offset; `length` sets the Content-Length."""
    query = parse_qs(environ["QUERY_STRING"])
    handle = open(NOTES.path("large"), "rb")
    handle.seek(int(query.get("offset", ["0"])[0]))
    fields = list(TEXT)
    if "length" in query:
        fields.append(("Content-Length", query["length"][0]))
    start_response("200 OK", fields)
    return environ["wsgi.file_wrapper"](handle, 32768)


class Counting(io.BytesIO):
    """Like a file, but with nothing behind it that sendfile could use."""

    def close(self):
        note("closed")
        super().close()


@case
def file_like(environ, start_response):
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](Counting(b"0123456789" * 10_000), 1000)


@case
def file_minimal(environ, start_response):
    """Only read(), as PEP 3333 demands no more."""

    class Minimal:
        def __init__(self):
            self.left = 3

        def read(self, size):
            self.left -= 1
            return b"block " if self.left >= 0 else b""

    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](Minimal())


@case
def file_closes(environ, start_response):
    class Noting(io.FileIO):
        def close(self):
            if not self.closed:
                note("closed")
            super().close()

    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](Noting(NOTES.path("large")))


@case
def file_wrapped(environ, start_response):
    """A middleware iterates over the wrapper instead of passing it on."""
    start_response("200 OK", TEXT)
    wrapper = environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789"), 4)
    return [block.replace(b"5", b"-") for block in wrapper]


def swapped(start_response, environ):
    """The order that an old wiki page shows."""
    start_response("200 OK", TEXT)
    return [b"never"]
