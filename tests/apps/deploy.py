"""An application under deployment: how its import goes is in DEPLOY_DIR/mode, its version in DEPLOY_DIR/version."""

import ctypes
import os
import time
from pathlib import Path

DIR = Path(os.environ["DEPLOY_DIR"])
LONG = 3600


def read(name):
    path = DIR / name
    return path.read_text() if path.exists() else ""


with open(DIR / "boots", "a") as boots:
    boots.write("boot\n")
VERSION = read("version") or "0"
MODE = read("mode")
if MODE == "raise":
    raise RuntimeError("this version is broken")
if MODE == "exit":
    os._exit(7)
if MODE == "segfault":
    ctypes.string_at(1)
if MODE == "hang":
    time.sleep(LONG)
if MODE == "slow":
    time.sleep(3)

HELD = []


def spin():
    while True:
        pass


def hold_gil():
    # Unlike CDLL, PyDLL keeps the GIL while it calls.
    ctypes.PyDLL(None).sleep(LONG)


def grow():
    HELD.append(b"x" * (200 << 20))


def stuck():
    (DIR / "stuck").touch()
    time.sleep(LONG)


ACTIONS = {"/spin": spin, "/gil": hold_gil, "/grow": grow, "/sleep": lambda: time.sleep(1), "/stuck": stuck, "/nap": lambda: time.sleep(0.4)}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    ACTIONS.get(path, lambda: None)()
    status = "503 Service Unavailable" if path == "/sick" else "200 OK"
    body = VERSION.encode()
    start_response(status, [("X-Worker", str(os.getpid())), ("Content-Length", str(len(body)))])
    return [body]
