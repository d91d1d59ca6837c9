import os

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


def forget_the_worker():
    for number in OURS:
        # None: a handler that is not Python's, so not the application's.
        if signal.getsignal(number) is None:
            signal.signal(number, signal.SIG_DFL)
    release_signals()


# Registered first: the hook before a fork runs last, the others first.
os.register_at_fork(before=hold_signals, after_in_parent=release_signals, after_in_child=forget_the_worker)
