"""Answers and requests with bodies of several sizes, by path."""

import json
import os

BLOCK = b"x" * 65536
TEXT = [("Content-Type", "text/plain")]

# 1,000 blocks of an iterable without a known length.
BLOCKS, BLOCK_SIZE = 1000, 256
PIECE = b"y" * BLOCK_SIZE

ROWS = [{"id": number, "name": f"user {number}", "email": f"user{number}@example.org", "active": True} for number in range(130)]


# Ten MiB, made by scripts/bench/run.
FILE = os.environ["BENCH_FILE"]


def hello(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", "13")])
    return [b"Hello World!\n"]


def block(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(BLOCK)))])
    return [BLOCK]


def upload(environ, start_response):
    left = int(environ.get("CONTENT_LENGTH") or 0)
    read = environ["wsgi.input"].read
    count = 0
    while left > 0:
        data = read(min(left, 65536))
        if not data:
            break
        count += len(data)
        left -= len(data)
    answer = str(count).encode()
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(answer)))])
    return [answer]


def file(environ, start_response):
    opened = open(FILE, "rb")
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(os.fstat(opened.fileno()).st_size))])
    wrapper = environ.get("wsgi.file_wrapper")
    return wrapper(opened, 65536) if wrapper else iter(lambda: opened.read(65536), b"")


def rows(environ, start_response):
    data = json.dumps(ROWS).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def stream(environ, start_response):
    # A list of its own: the server may change it (PEP 3333).
    start_response("200 OK", [*TEXT])
    return (PIECE for _ in range(BLOCKS))


PATHS = {"/": hello, "/block": block, "/upload": upload, "/file": file, "/json": rows, "/stream": stream}


def application(environ, start_response):
    return PATHS[environ["PATH_INFO"]](environ, start_response)
