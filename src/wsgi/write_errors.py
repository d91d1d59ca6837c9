"""SIGPIPE and SIGXFSZ stand for an error of write(): their default action would let a client or a log's reader that leaves, or a limit of
file sizes, end the worker. An application that asks for it (`signal.signal(SIGPIPE, SIG_DFL)` is a common line) has it in its children."""

import os

# Not `signal`, whose enums take as long to make as all else that is loaded at the start.
import _signal

NUMBERS = (_signal.SIGPIPE, _signal.SIGXFSZ)

install = _signal.signal


def signal(signalnum, handler, /):
    before = install(signalnum, handler)
    if signalnum in NUMBERS and _signal.getsignal(signalnum) == _signal.SIG_DFL:
        # Python goes on to say SIG_DFL, and so does exec, which gives a signal with a handler its default action.
        do_nothing(signalnum)
    return before


def leave_the_worker():
    for number in NUMBERS:
        if _signal.getsignal(number) == _signal.SIG_DFL:
            install(number, _signal.SIG_DFL)


# `signal.signal` calls this one.
_signal.signal = signal
os.register_at_fork(after_in_child=leave_the_worker)
