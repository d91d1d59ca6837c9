"""Ends its worker in every way a process can end; otherwise like probe. UNSTEADY_DIR has the files that tests and it exchange."""

import ctypes
import os
import time
from pathlib import Path

import probe

DIR = Path(os.environ.get("UNSTEADY_DIR", "."))
# A gate that nobody opens ends the request, so that a failed test leaves no hanging worker.
GATE_LIMIT = 20

with open(DIR / "boots", "a") as boots:
    boots.write("boot\n")
if (DIR / "broken").exists():
    raise RuntimeError("broken after a good start")


def segfault(environ, query):
    ctypes.string_at(1)


def leave(environ, query):
    os._exit(probe.number(query, "code", 7))


def abort(environ, query):
    os.abort()


def gated(environ, query):
    """Says that it is running, then waits for the gate."""
    name = query["name"][0]
    (DIR / ("entered-" + name)).touch()
    deadline = time.monotonic() + GATE_LIMIT
    while not (DIR / ("gate-" + name)).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody opened the gate " + name)
        time.sleep(0.002)
    return probe.text(b"passed " + name.encode())


probe.ROUTES.update({"/segfault": segfault, "/leave": leave, "/abort": abort, "/gated": gated})
application = probe.application
