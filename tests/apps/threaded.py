"""What an application sees of the threads that call it, one case a path. THREADS_DIR holds gates and notes."""

import contextvars
import ctypes
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qs

from notes import GATE_LIMIT, Notes

NOTES = Notes("THREADS_DIR")
note, await_gate, is_open = NOTES.note, NOTES.await_gate, NOTES.is_open
TIMERS = ctypes.CDLL("librt.so.1")
LOCAL = threading.local()
KEPT = []
CONTEXT = contextvars.ContextVar("request", default=None)


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    body = CASES[environ["PATH_INFO"].strip("/")](query, environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()] if isinstance(body, str) else body


signal.signal(signal.SIGUSR2, lambda number, frame: note("signals", threading.current_thread().name))


def name(query, environ):
    return f"{threading.current_thread().name} {environ['wsgi.multithread']}"


def gated(query, environ):
    """A call that lasts until its gate opens; with `id` its context variable is its own."""
    CONTEXT.set(query.get("id"))
    note("inside", threading.current_thread().name)
    await_gate("gate")
    assert CONTEXT.get() == query.get("id"), CONTEXT.get()
    return f"{CONTEXT.get()} {threading.current_thread().name}"


def local(query, environ):
    LOCAL.count = getattr(LOCAL, "count", 0) + 1
    time.sleep(float(query.get("sleep", 0)))
    return f"{threading.current_thread().name} {LOCAL.count}"


class Blocks:
    """Names the thread of the call, of each block and of close()."""

    def __init__(self):
        self.threads = [threading.current_thread().name]

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.append(threading.current_thread().name)
        time.sleep(0.005)
        if len(self.threads) > 5:
            raise StopIteration
        return b"block\n"

    def close(self):
        self.threads.append(threading.current_thread().name)
        note("streams", " ".join(self.threads))


def stream(query, environ):
    time.sleep(0.005)
    return Blocks()


def spin(query, environ):
    """Keeps the interpreter's lock as far as pure Python can."""
    note("inside", "spin")
    deadline = time.monotonic() + GATE_LIMIT
    while not is_open("gate") and time.monotonic() < deadline:
        for _ in range(300_000):
            pass
    return "span"


def refused(query, environ):
    """Python's own error beside the main thread, no error on it."""
    time.sleep(float(query["sleep"]))
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    except ValueError as error:
        return str(error)
    return threading.current_thread().name


def fork(query, environ):
    child = os.fork()
    if child == 0:
        os._exit(7)
    return str(os.WEXITSTATUS(os.waitpid(child, 0)[1]))


def killed(query, environ):
    for _ in range(100):
        child = os.fork()
        if child == 0:
            time.sleep(GATE_LIMIT)
            os._exit(1)
        # At once, maybe before the child has run at all.
        os.kill(child, signal.SIGTERM)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGTERM:
            return "not killed"
    return "killed"


def run(query, environ):
    return subprocess.run([sys.executable, "-c", "print(6 * 7)"], check=True, capture_output=True, text=True).stdout.strip()


def pool(query, environ):
    with multiprocessing.get_context(query["method"]).Pool(2) as workers:
        return str(workers.map(abs, [-1, 2, -3]))


def hints(query, environ):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload"), ("X-Hint", "1")])
    environ["wsgi.early_hints"]([("Link", "</more.css>; rel=preload")])
    note("hinted", "hinted")
    if "gate" in query:
        await_gate("gate")
    return "hinted"


def hints_for_nobody(query, environ):
    note("called", "called")
    deadline = time.monotonic() + GATE_LIMIT
    while not environ["tapster.client_disconnected"]() and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(3):
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    note("hinted", "hinted")
    return "hinted"


def bad_hints(query, environ):
    errors = []
    for headers in ([("Bad name", "1")], [("X", "a\r\nb")], [("Content-Length", "1")], [("X", "\u0142")], ["X"], None):
        try:
            environ["wsgi.early_hints"](headers)
        except (TypeError, ValueError) as error:
            errors.append(type(error).__name__)
    return " ".join(errors)


def late_hints(query, environ):
    def blocks():
        yield b"first "
        environ["wsgi.early_hints"]([("Link", "</late.css>")])
        yield b"second"

    return blocks()


def disconnected(query, environ):
    """Notes what it is told until it is told that the client has left."""
    has_left = environ["tapster.client_disconnected"]
    note("told", str(has_left()))
    deadline = time.monotonic() + GATE_LIMIT
    while not has_left() and time.monotonic() < deadline:
        time.sleep(0.002)
    note("told", str(has_left()))
    return "left"


def disconnected_stream(query, environ):
    has_left = environ["tapster.client_disconnected"]

    def blocks():
        yield b"first"
        deadline = time.monotonic() + GATE_LIMIT
        while not has_left() and time.monotonic() < deadline:
            time.sleep(0.002)
        note("told", str(has_left()))
        yield b"second"

    return blocks()


def remember(query, environ):
    KEPT.append(environ["tapster.client_disconnected"])
    return "kept"


def remembered(query, environ):
    return " ".join(str(has_left()) for has_left in KEPT)


def native(query, environ):
    """A thread that Python does not know until then calls into it, a moment after the answer."""
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: note("native", "called"))
    KEPT.append(callback)
    # timer_create(2) with SIGEV_THREAD (2); struct sigevent has 64 bytes.
    event = struct.pack("=QiiQ", 0, 0, 2, ctypes.cast(callback, ctypes.c_void_p).value).ljust(64, b"\0")
    timer = ctypes.c_void_p()
    made = TIMERS.timer_create(time.CLOCK_MONOTONIC, event, ctypes.byref(timer))
    # No interval, once in 50 ms.
    return str(made or TIMERS.timer_settime(timer, 0, struct.pack("=qqqq", 0, 0, 0, 50_000_000), None))


CASES = {
    "native": native,
    "hints": hints,
    "hints_for_nobody": hints_for_nobody,
    "bad_hints": bad_hints,
    "late_hints": late_hints,
    "disconnected": disconnected,
    "disconnected_stream": disconnected_stream,
    "remember": remember,
    "remembered": remembered,
    "name": name,
    "gated": gated,
    "local": local,
    "stream": stream,
    "spin": spin,
    "refused": refused,
    "fork": fork,
    "killed": killed,
    "run": run,
    "pool": pool,
}
