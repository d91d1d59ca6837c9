"""Who is told of a signal, beside Python itself: the server, or the application if it asks (signal.set_wakeup_fd)."""

import os
import sys

# Not `signal`, whose enums take as long to make as all else that is loaded at the start.
import _signal

NONE = -1

install = _signal.set_wakeup_fd
# The server's descriptor; none before it serves, and in a child.
server = NONE


def set_wakeup_fd(fd, /, *, warn_on_full_buffer=True):
    """As Python's own, for an application that sees nothing of the server's: it has its descriptor until it sets -1."""
    if fd == NONE and server != NONE:
        before = install(server, warn_on_full_buffer=False)
    else:
        before = install(fd, warn_on_full_buffer=warn_on_full_buffer)
    return NONE if before == server else before


def begin(fd):
    global server
    before = install(fd, warn_on_full_buffer=False)
    server = fd
    if before != NONE:
        install(before)


def forget_the_worker():
    global server
    before = install(NONE)
    if before != server:
        install(before)
    server = NONE


for module in (_signal, sys.modules.get("signal")):
    if module is not None:
        module.set_wakeup_fd = set_wakeup_fd
os.register_at_fork(after_in_child=forget_the_worker)
