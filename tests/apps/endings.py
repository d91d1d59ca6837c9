"""Answers behind which connections end, some of them late. ENDINGS_DIR has the gates that end waits, and notes that a call has begun."""

import os

from notes import Notes

NOTES = Notes("ENDINGS_DIR")
CHILDREN = []


def fork():
    child = os.fork()
    if child == 0:
        try:
            NOTES.await_gate("gate")
        finally:
            os._exit(0)
    CHILDREN.append(child)


def gated():
    NOTES.note("entered", "")
    NOTES.await_gate("gate")


def behind():
    NOTES.note("behind", "")
    NOTES.await_gate("end")


def look():
    open("/dev/null").close()


def reap():
    while CHILDREN:
        os.waitpid(CHILDREN.pop(), 0)


def broken():
    yield b"begun"
    raise RuntimeError("on purpose")


def large():
    return [b"x" * 65536]


ANSWERS = {"/large": ([], large), "/closing": ([("Connection", "close")], large), "/broken": ([], broken)}
CASES = {"/fork": fork, "/gated": gated, "/behind": behind, "/look": look, "/reap": reap}


def application(environ, start_response):
    if environ["PATH_INFO"] in ANSWERS:
        fields, answer = ANSWERS[environ["PATH_INFO"]]
        start_response("200 OK", fields)
        return answer()
    CASES.get(environ["PATH_INFO"], lambda: None)()
    start_response("200 OK", [("Content-Length", "6")])
    return [b"hello\n"]
