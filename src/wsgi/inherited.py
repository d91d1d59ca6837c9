"""What a worker that is a fork of the interpreter of its application changes, since that was started for another purpose."""

import atexit
import os
import sys

# Not `signal`: its functions would make enums of the handlers.
import _signal


def begin(ours):
    """Called once in the new process, before it serves. `ours` are the numbers of the server's signals."""
    forget_exit_handlers()
    keep_signal_handlers(ours)
    renew_streams()
    return reseed()


def forget_exit_handlers():
    """Those of the program are for its own end: they remove its files, and stop what it has started."""
    atexit._clear()
    logging = sys.modules.get("logging")
    if logging is not None:
        # It writes what handlers of the worker have collected.
        atexit.register(logging.shutdown)


def keep_signal_handlers(ours):
    """The fork has given every signal its default action; and what the program has for some was put away for the server's time."""
    put_away = getattr(sys.modules.get("tapster._call"), "handlers", {})
    for number in _signal.valid_signals():
        handler = put_away.get(number) or _signal.getsignal(number)
        if number not in ours and callable(handler):
            try:
                _signal.signal(number, handler)
            except (OSError, ValueError):
                # The C library has it for itself.
                pass


def renew_streams():
    """Standard output and error may be other files than those for which the streams were made."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, "__" + name + "__"):
            # The program's own.
            continue
        try:
            if stream.fileno() != number:
                continue
            new = open(number, "w", 1, stream.encoding, "backslashreplace", closefd=False)
        except (OSError, ValueError):
            # It is closed.
            continue
        setattr(sys, name, new)
        setattr(sys, "__" + name + "__", new)


def reseed():
    """Random numbers that each worker would have alike: names of generators that were seeded anew. (Python seeds its own.)"""
    numpy = sys.modules.get("numpy.random")
    if numpy is None:
        return []
    numpy.seed(int.from_bytes(os.urandom(16), "little") % (1 << 32))
    return ["numpy.random"]
