import os

# Not `signal`, whose enums take as long to make as all else that is loaded here.
import _signal as signal

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


def forget_the_worker():
    for number in OURS:
        # None: a handler that is not Python's, so not the application's.
        if signal.getsignal(number) is None:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=forget_the_worker)
