"""Requests that last too long, each in its own way. What they see is noted in DEADLINE_DIR."""

import ctypes
import os
import time

from notes import Notes
from tapster import RequestTimeout

NOTES = Notes("DEADLINE_DIR")
note = NOTES.note
LONG = 3600


def spin():
    while True:
        pass


def caught(environ, start_response):
    try:
        spin()
    except RequestTimeout as error:
        return answer(start_response, f"caught: {error}")


def stubborn(environ, start_response):
    while True:
        try:
            spin()
        except TimeoutError:
            note("swallowed", "one")


def written(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"one")
    NOTES.await_gate("gate")
    for _ in range(3):
        try:
            write(b"two")
        except ConnectionError as error:
            note("refused", str(error))
    return [b"three"]


def gated(environ, start_response):
    NOTES.await_gate("gate")
    note("passed", "one")
    return answer(start_response, "late")


def blocks(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return pieces(environ["QUERY_STRING"] == "hang")


def pieces(hang):
    try:
        for _ in range(8):
            yield b"block\n"
            time.sleep(0.3)
        if hang:
            time.sleep(LONG)
    finally:
        note("closed", "one")


def hang(environ, start_response):
    spin()


def steps(environ, start_response):
    note("stepping", "one")
    NOTES.await_gate("gate")
    for _ in range(6):
        time.sleep(0.05)
    return answer(start_response, "walked")


def sleep(environ, start_response):
    time.sleep(LONG)


def hold_gil(environ, start_response):
    # Unlike CDLL, PyDLL keeps the GIL while it calls.
    note("holding", "one")
    ctypes.PyDLL(None).sleep(int(environ["QUERY_STRING"] or LONG))
    return answer(start_response, "held")


def hold_gil_and_spin(environ, start_response):
    hold_gil(environ, start_response)
    spin()


def counted(environ, start_response):
    body = environ["wsgi.input"].read()
    note("counted", environ["QUERY_STRING"])
    return answer(start_response, environ["QUERY_STRING"] + body.decode())


def quick(environ, start_response):
    return answer(start_response, "quick")


def answer(start_response, text):
    body = text.encode()
    start_response("200 OK", [("X-Worker", str(os.getpid())), ("Content-Length", str(len(body)))])
    return [body]


def application(environ, start_response):
    return globals()[environ["PATH_INFO"][1:]](environ, start_response)
