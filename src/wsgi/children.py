import os
import sys

# Not `signal`, whose enums take as long to make as all else that is loaded here.
import _signal as signal
from _thread import get_ident

# What the worker catches for itself: TERM and QUIT by pipes that a forked child shares with it, so that ending the child would
# end the worker; the others to do nothing.
OURS = (
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)

# What each forking thread blocked before.
MASKS = {}


def hold_signals():
    # One that met the child before it has forgotten the worker would end the worker, and not the child.
    MASKS[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)


def release_signals():
    mask = MASKS.pop(get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# Whether this process is a child that the application has forked.
is_child = False

# The thread that is forking a worker, which has nothing to forget; 0: none does.
bearing = 0


def forget_the_worker():
    global is_child
    if bearing == get_ident():
        release_signals()
        return
    is_child = True
    for number in OURS:
        # Not the application's handler: one that is not Python's (None), or that an interpreter has not seen being set.
        if signal.getsignal(number) in (None, signal.SIG_DFL):
            signal.signal(number, signal.SIG_DFL)
    release_signals()


def end(error):
    """A child ends by this SystemExit as Python ends a program, but for the handlers of `atexit`: they are the worker's."""
    code = error.code
    if code is None:
        code = 0
    elif isinstance(code, int):
        code &= 0xFF
    else:
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            # Missing, closed, or nobody reads.
            pass
    os._exit(code)


# Registered first: the hook before a fork runs last, the others first.
os.register_at_fork(before=hold_signals, after_in_parent=release_signals, after_in_child=forget_the_worker)
