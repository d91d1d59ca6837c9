"""An application that closes, replaces or shuts down descriptors of the server by their numbers."""

import os
import resource
import socket
import time
from urllib.parse import parse_qsl


kept = []


def link(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


def kind(number):
    """What the server has the descriptor for."""
    name = link(number)
    if name.startswith("anon_inode:"):
        return name.removeprefix("anon_inode:").strip("[]")
    if name.endswith("access.log"):
        return "log"
    if not name.startswith("socket:"):
        return "other"
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "listener"
        if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_SEQPACKET:
            # The queue is made by the master at its start, the channel for the worker.
            return "seqpacket"
        if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_DGRAM:
            return "spare"
        return "pipe" if sock.family == socket.AF_UNIX and not sock.getsockname() else "connection"


def numbers(what):
    found = [n for n in map(int, os.listdir("/proc/self/fd")) if n > 2]
    if what in ("channel", "queue"):
        sockets = sorted(n for n in found if kind(n) == "seqpacket")
        return sockets[2:] if what == "channel" else sockets[:2]
    return [n for n in found if kind(n) == what]


def take():
    """Every descriptor that is left, as a leak does in the end."""
    try:
        while True:
            kept.append(os.dup(2))
    except OSError:
        return len(kept)


def lower():
    """The limit is lower than the numbers in use."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    return 1


def act(how, what):
    if what == "all":
        return {"take": take, "lower": lower}[how]()
    targets = numbers(what)
    if how == "replace":
        other = os.open("/dev/null", os.O_RDWR)
        if what == "log":
            # What a log line would go to in the worst case.
            other = os.open(os.environ["VICTIM"], os.O_RDWR | os.O_CREAT)
        for number in targets:
            os.dup2(other, number, inheritable=False)
    elif how == "close":
        for number in targets:
            os.close(number)
    else:
        for number in targets:
            with socket.socket(fileno=os.dup(number)) as sock:
                sock.shutdown(socket.SHUT_RDWR)
    return len(targets)


def app(environ, start_response):
    body = "ok"
    while environ["PATH_INFO"] == "/wait" and not os.path.exists(os.environ["VICTIM"] + ".gate"):
        time.sleep(0.01)
    if environ["PATH_INFO"] == "/act":
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        body = str(act(query["how"], query["what"]))
        # The thread that watches calls takes the loop meanwhile.
        time.sleep(0.05)
    start_response("200 OK", [("X-Worker", str(os.getpid())), ("Content-Length", str(len(body)))])
    return [body.encode()]
