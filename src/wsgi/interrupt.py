"""With --debug, SIGINT stays the server's. A debugger takes it at each `continue`, so that Ctrl-C comes back to its prompt, and
returns it at the next prompt only: between requests, where no Python code runs, Ctrl-C would then do nothing.
"""

import sys

# Not `signal`, whose function calls this one.
import _signal

install = _signal.signal


def signal(signalnum, handler, /):
    bdb = sys.modules.get("bdb")
    if signalnum == _signal.SIGINT and bdb is not None and isinstance(getattr(handler, "__self__", None), bdb.Bdb):
        # As of a handler that is not Python's: the debugger has none to put back.
        return None
    return install(signalnum, handler)


_signal.signal = signal
