"""Answers that last: events, blocks without bytes, large ones; one case a path. STREAMS_DIR holds gates and notes."""

import hashlib
import threading
import time
from urllib.parse import parse_qs

from notes import Notes

NOTES = Notes("STREAMS_DIR")
note = NOTES.note
# A gate that nobody opens ends the stream, so that a failed test leaves no hanging worker.
GATE_LIMIT = 60
BLOCK = b"x" * (64 * 1024)
LARGE = NOTES.path("large")


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    return CASES[environ["PATH_INFO"].strip("/")](query, environ, start_response)


def name(query, environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [threading.current_thread().name.encode()]


def events(query, environ, start_response):
    """Server-sent events: the first at once, the second when the gate opens, the others at their intervals; each with its time."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return produce(int(query["count"]), float(query["interval"]))


def produce(count, interval):
    yield f"data: {time.time()}\n\n".encode()
    deadline = time.monotonic() + GATE_LIMIT
    while not NOTES.is_open("gate") and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(count):
        yield f"data: {time.time()}\n\n".encode()
        time.sleep(interval)


def empty(query, environ, start_response):
    """Blocks without bytes, for ever."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return nothing(float(query["pause"]))


def nothing(pause):
    deadline = time.monotonic() + GATE_LIMIT
    note("empty", "begun")
    try:
        while time.monotonic() < deadline:
            yield b""
            time.sleep(pause)
        note("empty", "its end")
    except GeneratorExit:
        note("empty", "closed")
        raise


def few(query, environ, start_response):
    """Some empty blocks around full ones, and time for the client to close its side."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return some(float(query["pause"]))


def some(pause):
    for block in [b"", b"a", b"", b"", b"b", b"", b"", b"c", b""]:
        time.sleep(pause)
        yield block


def blocks(query, environ, start_response):
    size = int(query["size"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
    return (BLOCK[: min(len(BLOCK), size - at)] for at in range(0, size, len(BLOCK)))


def file(query, environ, start_response):
    size = int(query["size"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
    return environ["wsgi.file_wrapper"](open(LARGE, "rb"), len(BLOCK))


def upload(query, environ, start_response):
    digest, size = hashlib.sha1(), 0
    while True:
        data = environ["wsgi.input"].read(len(BLOCK))
        if not data:
            break
        digest.update(data)
        size += len(data)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{size} {digest.hexdigest()}".encode()]


CASES = {case.__name__: case for case in (name, events, empty, few, blocks, file, upload)}
