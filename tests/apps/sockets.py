"""The raw connection as applications use it: flask-sock's WebSockets, other protocols by hand, and answers without it."""

import os
import select
import socket
import threading
import time

from flask import Flask, request
from flask_sock import Sock
from notes import Notes

app = Flask(__name__)
sock = Sock(app)


note = Notes("SOCKETS_DIR").note


@app.get("/")
def hello():
    return f"hello {threading.current_thread().name}", {"X-Worker": str(os.getpid())}


@app.get("/wait")
def wait():
    while not os.path.exists(os.path.join(os.environ["SOCKETS_DIR"], "gate")):
        time.sleep(0.005)
    return "waited"


@sock.route("/echo")
def echo(ws):
    note("begun", "echo")
    try:
        while True:
            ws.send(ws.receive())
    finally:
        note("ended", "echo")


@sock.route("/bye")
def bye(ws):
    ws.send("bye")
    ws.close(reason=4001, message="enough")
    note("ended", "bye")


@sock.route("/fault")
def fault(ws):
    ws.send("now")
    raise LookupError("a fault behind the handshake")


def application(environ, start_response):
    """Beside Flask: what uses the socket without a library, or not at all."""
    path = environ["PATH_INFO"]
    if not path.startswith("/raw/"):
        return app(environ, start_response)
    connection = environ.get("gunicorn.socket")
    if path == "/raw/offered":
        return answer(start_response, str(connection is not None))
    if path == "/raw/ask":
        # Nothing of this is a use of the connection.
        peer = connection.getpeername()[1]
        repr(connection), connection.family, connection.gettimeout()
        return answer(start_response, str(peer == int(environ["REMOTE_PORT"])))
    if path == "/raw/refuse":
        start_response("426 Upgrade Required", [("Content-Type", "text/plain"), ("Upgrade", "lines")])
        return [b"another version, please\n"]
    if path == "/raw/keep":
        app.config["KEPT"] = connection
        return answer(start_response, "kept")
    if path == "/raw/kept":
        try:
            app.config["KEPT"].send(b"too late")
        except OSError as error:
            return answer(start_response, type(error).__name__)
        return answer(start_response, "sent")
    if path == "/raw/fail":
        raise LookupError("a fault before the handshake")
    if path == "/raw/lines":
        return lines(connection)
    if path == "/raw/select":
        ready, _, _ = select.select([connection], [], [], 10)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + str(bool(ready)).encode())
        connection.sendall(connection.recv(100))
        # Its own end of everything: the answer that follows is nobody's.
        return answer(start_response, "never sent")
    if path == "/raw/dup":
        with connection.dup() as other:
            other.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            other.sendall(other.recv(5, socket.MSG_WAITALL))
        connection.sendall(b", and that is all")
        raise StopIteration()
    return answer(start_response, "unknown")


def answer(start_response, text):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text.encode()]


def lines(connection):
    """Answers each line with itself, reversed, until an empty one."""
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
    with connection.makefile("rwb", buffering=0) as file:
        for line in file:
            if line == b"\n":
                break
            file.write(line.rstrip(b"\n")[::-1] + b"\r\n")
    note("ended", "lines")
    raise StopIteration()
