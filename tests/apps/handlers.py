"""An application with signal handlers of its own, one case a path. HANDLERS_DIR holds gates and notes."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from urllib.parse import parse_qs

from notes import GATE_LIMIT, Notes

NOTES = Notes("HANDLERS_DIR")
note, await_gate = NOTES.note, NOTES.await_gate
# Two that the server does not know.
KICK, STUCK = signal.SIGRTMIN + 2, signal.SIGRTMIN + 3
# When the signal on its way was or will be sent.
SENT = 0.0
# What the handler of SIGRTMIN+2 does besides its note.
WHAT = ""


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    body = CASES[environ["PATH_INFO"].strip("/")](query)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]


def handled(number, frame):
    late = int((time.monotonic() - SENT) * 1000)
    note("handled", f"{late} {threading.current_thread().name}")
    if WHAT == "raise":
        raise RuntimeError("out of the handler")
    if WHAT == "wait":
        await_gate("gate")


def what(query):
    """Says what handlers do from now on."""
    global WHAT
    WHAT = query["do"]
    return WHAT


def never_ends(number, frame):
    note("handled", "stuck")
    while True:
        time.sleep(0.01)


signal.signal(signal.SIGALRM, handled)
signal.signal(KICK, handled)
signal.signal(STUCK, never_ends)


def churn(query):
    """A call that costs the loop: another thread has it afterwards."""
    time.sleep(float(query.get("sleep", 0)))
    return "churned"


def alarm(query):
    global SENT, WHAT
    WHAT = query.get("what", "")
    delay = float(query["after"])
    SENT = time.monotonic() + delay
    signal.setitimer(signal.ITIMER_REAL, delay)
    return "armed"


def kick(query):
    """A thread that sends itself the signal: the kernel gives it to that thread, and not to the main one."""
    global WHAT
    WHAT = query.get("what", "")
    number = STUCK if query.get("signal") == "stuck" else KICK

    def send():
        global SENT
        if WHAT or number == STUCK:
            # Else the handler could run in this request.
            await_gate("answered")
        time.sleep(float(query["after"]))
        SENT = time.monotonic()
        signal.pthread_kill(threading.get_ident(), number)

    threading.Thread(target=send, daemon=True).start()
    return "armed"


def often(query):
    """An alarm every 20 ms, from now on; each notes how late it is."""

    def tick(number, frame):
        global SENT
        now = time.monotonic()
        note("handled", f"{max(0, int((now - SENT) * 1000) - 20)} {threading.current_thread().name}")
        SENT = now

    global SENT
    SENT = time.monotonic()
    if threading.current_thread() is not threading.main_thread():
        return "again"
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    return "ticking"


def own(query):
    """The application's own descriptor, from its setting to its end; only where Python allows it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    global SENT
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    SENT = time.monotonic()
    signal.raise_signal(KICK)
    byte = os.read(reader, 1)[0]
    back = signal.set_wakeup_fd(-1)
    os.close(reader)
    os.close(writer)
    return f"{before} {byte == KICK} {back == writer}"


def in_a_child():
    """Whether handlers work in this process, and nobody else is told of its signals."""
    seen = []
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    deadline = time.monotonic() + GATE_LIMIT
    while not seen and time.monotonic() < deadline:
        time.sleep(0.002)
    wakeup = sys.modules.get("tapster_wakeup")
    untold = wakeup is None or wakeup.install(-1) == -1
    return 0 if seen and untold else 1


def child(query):
    if query["method"] == "os.fork":
        pid = os.fork()
        if pid == 0:
            os._exit(in_a_child())
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    process = multiprocessing.get_context(query["method"]).Process(target=exit_in_a_child)
    process.start()
    process.join()
    return str(process.exitcode)


def exit_in_a_child():
    sys.exit(in_a_child())


if "HANDLERS_ONE_CPU" in os.environ:
    # Threads that are woken wait until the one that runs waits: the loop does a whole turn before they see what it has sent them.
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

CASES = {
    "churn": churn,
    "alarm": alarm,
    "kick": kick,
    "what": what,
    "often": often,
    "own": own,
    "child": child,
}
