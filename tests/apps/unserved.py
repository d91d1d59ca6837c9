"""`/slow` waits for its gate; `/counted` is noted; `/wait` waits for `/break`, which takes the event loop's poll away behind its own call. UNSERVED_DIR has
the gate, and notes that a call has begun."""

import os
import threading
import time

from notes import Notes

NOTES = Notes("UNSERVED_DIR")
GO = threading.Event()


def poll():
    for number in os.listdir("/proc/self/fd"):
        try:
            if "eventpoll" in os.readlink("/proc/self/fd/" + number):
                return int(number)
        except OSError:
            pass


def slow():
    NOTES.note("inside", "slow")
    NOTES.await_gate("gate")


def counted():
    NOTES.note("counted", "one")


def wait():
    NOTES.note("inside", "wait")
    GO.wait()


def take_away():
    number, null = poll(), os.open("/dev/null", os.O_RDONLY)
    began = time.monotonic()
    GO.set()
    # For the other call to end, and no tick of the loop.
    time.sleep(0.0003)
    if time.monotonic() - began > 0.001:
        NOTES.note("overslept", "the loop may have gone on meanwhile")
    os.dup2(null, number)


CASES = {"/kept": lambda: None, "/slow": slow, "/counted": counted, "/wait": wait, "/break": take_away}


def application(environ, start_response):
    CASES[environ["PATH_INFO"]]()
    start_response("200 OK", [("Content-Length", "2"), ("X-Worker", str(os.getpid()))])
    return [b"ok"]
