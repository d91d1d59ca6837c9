"""A WebSocket client: websocket_client.py HOST:PORT|unix:PATH SCENARIO. Ends with an AssertionError when the server does wrong."""

import os
import socket
import ssl
import sys
import time

import websocket  # websocket-client

ADDRESS, SCENARIO = sys.argv[1], sys.argv[-1]
TIMEOUT = 60
# Before every path, for a server behind a proxy.
PREFIX = os.environ.get("PREFIX", "")


def connect(path="/echo"):
    if ADDRESS.startswith("unix:"):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(TIMEOUT)
        stream.connect(ADDRESS.removeprefix("unix:"))
        return websocket.create_connection(f"ws://test{PREFIX}{path}", socket=stream, timeout=TIMEOUT)
    # Whose certificate it is, is no matter here.
    options = {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}
    return websocket.create_connection(f"{ADDRESS.replace('http', 'ws', 1)}{PREFIX}{path}", timeout=TIMEOUT, sslopt=options)


def echo():
    ws = connect()
    for message in ["hello", "", "ü" * 1000, "x" * 70_000]:
        ws.send(message)
        assert ws.recv() == message, message[:20]
    data = bytes(range(256)) * 4096
    assert len(data) == 1 << 20
    ws.send_binary(data)
    assert ws.recv() == data
    # A message in pieces, with a ping between them.
    frame = websocket.ABNF.create_frame
    ws.send_frame(frame("one ", websocket.ABNF.OPCODE_TEXT, 0))
    ws.send_frame(frame("two ", websocket.ABNF.OPCODE_CONT, 0))
    ws.ping("still there?")
    ws.send_frame(frame("three", websocket.ABNF.OPCODE_CONT, 1))
    # In either order: the library answers pings on a thread of its own.
    answers = sorted(ws.recv_data(control_frame=True) for _ in range(2))
    assert answers == [(websocket.ABNF.OPCODE_TEXT, b"one two three"), (websocket.ABNF.OPCODE_PONG, b"still there?")], answers
    ws.close(timeout=TIMEOUT)


def bye():
    """Four times: at least one end must come as soon as the close frame is answered, also on a busy machine."""
    assert min(say_bye() for _ in range(4)) < 0.5


def say_bye():
    ws = connect("/bye")
    assert ws.recv() == "bye"
    opcode, payload = ws.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE, opcode
    assert payload == (4001).to_bytes(2, "big") + b"enough", payload
    # The answer to the close frame has been sent; the server ends the connection in order.
    began = time.monotonic()
    ws.sock.settimeout(TIMEOUT)
    assert ws.sock.recv(1) == b""
    return time.monotonic() - began


def hold():
    """Says that it stands, then waits for the server's end."""
    ws = connect()
    ws.send("hello")
    assert ws.recv() == "hello"
    print("standing", flush=True)
    try:
        assert ws.recv() in ("", b""), "a message that nobody sent"
    except (websocket.WebSocketException, ConnectionError):
        pass


def socketio():
    """Flask-SocketIO by its own client: polling first, then the upgrade."""
    import socketio

    for transports in (["polling", "websocket"], ["websocket"]):
        client = socketio.SimpleClient()
        client.connect(ADDRESS, transports=transports)
        # It upgrades before connect() returns.
        assert client.transport == "websocket", client.transport
        for number in range(20):
            client.emit("echo", {"number": number})
            assert client.receive(timeout=TIMEOUT) == ["echoed", {"number": number}]
        client.disconnect()


globals()[SCENARIO]()
