"""`tapster.start`: a server beside the program, for tests and tools."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import selectors
import signal
import sys
import threading
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

from ._call import _serve, with_address

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import WSGIApplication
    from typing_extensions import Unpack

    from ._options import Options

# What exit codes of the server mean.
_MEANINGS = {
    1: "it has failed",
    2: "an option cannot be used",
    3: "the workers cannot boot",
    4: "the application cannot be loaded",
}

# Time for the orders that follow when a graceful stop takes too long, in seconds: the quick stop of the server takes five.
_QUICK_STOP = 7.0

# Seconds that a server which could not start has for its own end.
_OWN_END = 10.0

# Pause between two looks at a process that is to end, in seconds.
_LOOK_EVERY = 0.005

# The same at a process that is to become ready, which says so itself as a rule.
_END_EVERY = 0.1

# The number of the last standard stream.
_STDERR = 2

# Bytes that are read at once of what it says.
_LINE = 4096

# Held from the pipe to a new process until its writing end is that one's alone: a fork by another thread would have it too.
_forking = threading.Lock()


def _renew_lock() -> None:
    global _forking
    _forking = threading.Lock()


# The thread that holds it is not in a fork.
os.register_at_fork(after_in_child=_renew_lock)


class Server:
    """A running server: a process, which ends with `stop()`, with the block of `with`, or with the program."""

    url: str
    """Where it serves, `http://127.0.0.1:41234`; of several addresses the first."""

    addresses: list[str]
    """All addresses, in the order of `bind`."""

    pid: int
    """Process id of the master."""

    exit_code: int | None
    """How it has ended, as soon as that is known; that of a signal is negative."""

    def __init__(self, pid: int, addresses: list[str]) -> None:
        """Made by `tapster.start`."""
        self.pid = pid
        self.addresses = addresses
        self.url = addresses[0]
        self.exit_code = None
        self._owner = os.getpid()
        # A handler of a signal may stop the server while its thread waits for it.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        state = "running" if self.exit_code is None else f"ended with {self.exit_code}"
        return f"<tapster.Server {self.url} pid {self.pid} {state}>"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def is_running(self) -> bool:
        """Whether the master lives."""
        return self.wait(0) is None

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits for the end of the server, at most so many seconds; returns the exit code, or None if it runs still."""
        if self._owner != os.getpid():
            raise RuntimeError(f"{self!r} belongs to process {self._owner}, which has started it")
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self.exit_code is None:
                    code = _reap(self.pid)
                    self.exit_code = code if self.exit_code is None else self.exit_code
                if self.exit_code is not None:
                    return self.exit_code
            if until is not None and time.monotonic() >= until:
                return None
            time.sleep(_LOOK_EVERY)

    def stop(self, timeout: float = 35.0) -> int:
        """Stops it in order, which answers what was accepted, and returns the exit code.

        After `timeout` seconds requests that still run are cut off, and in the end the server is killed. The default is a little
        more than that of `graceful_timeout`. A server that has ended is left alone.
        """
        for order, limit in ((signal.SIGTERM, timeout), (signal.SIGQUIT, _QUICK_STOP), (signal.SIGKILL, None)):
            if self.wait(0) is None:
                os.kill(self.pid, order)
            code = self.wait(limit)
            if code is not None:
                break
        assert code is not None, "a killed process ends"
        atexit.unregister(self._end_with_program)
        return code

    def _end_with_program(self) -> None:
        # A fork of the program has this handler too.
        if self._owner == os.getpid():
            self.stop()


def start(
    app: WSGIApplication | str, *, host: str | None = None, port: int | str | None = 0, **options: Unpack[Options]
) -> Server:
    """Starts a server in a process of its own, and returns when it is ready.

    `app` and the options are those of `tapster.serve`; here the kernel chooses the port, and there is one worker, if nothing else is
    said. With an object the process is a fork of this one, so the server has the application as it is now, and what it changes
    in memory stays there.

        with tapster.start(app) as server:
            urllib.request.urlopen(server.url)

    Raises what `tapster.serve` raises, and RuntimeError if the server does not become ready.
    """
    given: dict[str, Any] = dict(options)
    if given.get("bind") is not None:
        # The port of the default is no wish of the caller.
        port = port or None
    given = with_address(host, port, given)
    if given.get("workers") is None:
        given["workers"] = 1
    # Nobody looks for it there.
    given.setdefault("control_socket", "none")
    for name in ("daemon", "ready_fd"):
        if given.pop(name, None):
            raise TypeError(f"{name} has no place here: tapster.start waits itself")
    parent = os.getpid()
    is_main = threading.current_thread() is threading.main_thread()
    server: Server | None = None
    ends: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with _forking:
            ends += map(_above_streams, os.pipe())
            # What a handler raises must not come between the process and the one that knows of it.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            pid = _fork()
            if pid == 0:
                os.close(ends[0])
                _child(app, {**given, "ready_fd": ends[1]}, parent if is_main else None, mask)
            server = Server(pid, ["nowhere"])
            os.close(ends.pop())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        words = _first_line(ends[0], pid).split(" ")
    except BaseException:
        if server is not None:
            server.stop(_OWN_END)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for end in ends:
            os.close(end)
    server.addresses = words[1:] or server.addresses
    server.url = server.addresses[0]
    if words[0] != "READY":
        # A server that cannot start ends by itself, with the exit code that says why; a signal now would take its place.
        server.wait(_OWN_END)
        raise _failure(" ".join(words), server.stop())
    atexit.register(server._end_with_program)
    return server


def _failure(text: str, code: int) -> Exception:
    """What to raise, by what the process has written to the descriptor, and its exit code."""
    for kind in (TypeError, ValueError, RuntimeError):
        if text.startswith(kind.__name__ + " "):
            return kind(text[len(kind.__name__) + 1 :])
    meaning = f"was killed by signal {-code}" if code < 0 else f"exit code {code}: {_MEANINGS.get(code, 'it has ended')}"
    return RuntimeError(f"the server did not start ({meaning}); its error log, which is standard error by default, says why")


def _above_streams(number: int) -> int:
    """The file under a number that is none of a standard stream, which the server opens for itself where they are closed."""
    if number > _STDERR:
        return number
    above = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    os.close(number)
    return above


def _first_line(reader: int, pid: int) -> str:
    """What the process writes up to the end of a line, or of the process. The end of the pipe proves nothing: another thread may
    have forked while this one had the writing end.
    """
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while b"\n" not in text:
            has_ended = _has_ended(pid)
            if selector.select(0 if has_ended else _END_EVERY):
                piece = os.read(reader, _LINE)
                if not piece:
                    break
                text += piece
            elif has_ended:
                break
    return text.partition(b"\n")[0].decode("utf-8", "surrogateescape")


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        # Somebody else has waited for it.
        return True


def _fork() -> int:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    with warnings.catch_warnings():
        # About threads, which the error log names if it matters.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child(app: WSGIApplication | str, options: dict[str, Any], parent: int | None, mask: set[int]) -> NoReturn:
    """The process of the server, which ends here. It follows its parent, if that one's main thread has forked it."""
    from . import _tapster

    code = 1
    writer = options["ready_fd"]
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.set_inheritable(writer, True)
        if parent is not None:
            _tapster.follow_parent(parent)
        code = _serve(app, options, "tapster.start")
    except (TypeError, ValueError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            os.write(writer, f"{type(error).__name__} {error}\n".encode("utf-8", "surrogateescape"))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _reap(pid: int) -> int | None:
    """The exit code of a child that has ended."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        # Somebody else has waited for it, and knows how it ended.
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None
