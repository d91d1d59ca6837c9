"""Ends its worker in every way a process can end; otherwise like probe. UNSTEADY_DIR has the files that tests and it exchange."""

import ctypes
import os

import probe
from notes import Notes

NOTES = Notes("UNSTEADY_DIR")

NOTES.note("boots", "boot")
if NOTES.is_open("broken"):
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
    NOTES.note("entered-" + name, "")
    NOTES.await_gate("gate-" + name)
    return probe.text(b"passed " + name.encode())


probe.ROUTES.update({"/segfault": segfault, "/leave": leave, "/abort": abort, "/gated": gated})
application = probe.application
