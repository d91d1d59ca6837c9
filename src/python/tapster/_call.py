"""`tapster.serve`: the server, called by a Python program."""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

# Not `signal`: its functions would make enums of the handlers.
import _signal  # type: ignore[import-not-found]

from .__main__ import ORDERS, original_words

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from typing_extensions import Unpack

    from ._options import Options

# The application that is served, for a worker that is a fork of this process.
application: object = None

# What the program had for the server's signals, by their numbers.
handlers: dict[int, Any] = {}

# Whether the server runs in this process, or this is a worker of it.
_is_running = False

# Most threads that a warning names.
_NAMES_MAX = 8


def serve(
    app: WSGIApplication | str, *, host: str | None = None, port: int | str | None = None, **options: Unpack[Options]
) -> int:
    """Serves a WSGI application until the server is told to stop, and returns its exit code.

    `app` is the application itself, or its name as the command takes it: "module:app", "path/app.py". The options are those of the
    command, with underscores: `serve(app, workers=4, access_logfile="-")`; `host` and `port` are another way to give `bind`.
    Options that are not given come from the file of `config` and from the environment (TAPSTER_WORKERS), as for the command.

    The master lives in this process, which it makes its own: its title, and the signals. With a name each worker is an interpreter
    of its own, and HUP loads new code. With an object the workers are forks of this process, share the memory of what it has
    loaded, and have none of its other threads; USR2 starts the whole program anew, with the sockets open.

    Call it from the main thread, behind `if __name__ == "__main__":`.

    Raises TypeError for an option that does not exist, ValueError for a value that cannot be used, and RuntimeError where no server
    can be. An application that cannot be loaded is exit code 4, as with the command; the error log says why.
    """
    return _serve(app, with_address(host, port, dict(options)), "tapster.serve")


def with_address(host: str | None, port: int | str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options with `bind`, if one half of an address is given."""
    if host is None and port is None:
        return options
    if options.get("bind") is not None:
        raise TypeError("bind is given, and host or port too; leave one out")
    host = "127.0.0.1" if host is None else host
    if not isinstance(host, str):
        raise TypeError(f"host: a {type(host).__name__} is no name or address of a host; write a string")
    if host.startswith("unix:"):
        raise TypeError(f"host: a unix socket has no port; write bind={host!r}")
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return {**options, "bind": host if port is None else f"{host}:{port}"}


def _serve(app: WSGIApplication | str, options: dict[str, Any], caller: str) -> int:
    global application, handlers, _is_running

    from . import _tapster

    name = app if isinstance(app, str) else None
    if name is None and not callable(app):
        raise TypeError(f"{caller}: a {type(app).__name__} is neither a WSGI application nor the name of one")
    if _is_running or is_worker():
        raise RuntimeError(
            f"{caller} is called in a process that serves already; put the call behind `if __name__ == '__main__':`, so that "
            "an import of the program does not start another server"
        )
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"{caller} has to be called from the main thread, which alone is told of signals; tapster.start is not")
    plain = json.dumps({key: _plain(key, value) for key, value in options.items()})
    warnings = [] if name is not None else _thread_warnings()
    numbers = [getattr(_signal, "SIG" + order) for order in (*ORDERS, "CHLD")]
    handlers = {number: _signal.getsignal(number) for number in numbers}
    was_frozen = gc.get_freeze_count() > 0
    _is_running = True
    try:
        # Handlers of the program would be called beside those of the server.
        for number in numbers:
            _signal.signal(number, _signal.SIG_DFL)
        if name is None:
            application = app
            # The collector of a worker leaves alone what is there now, and so the memory stays shared.
            gc.collect()
            gc.freeze()
        return _tapster.serve(_script(), _command(), name, _title(app), plain, warnings)
    finally:
        _is_running = False
        application = None
        if not was_frozen:
            gc.unfreeze()
        for number, handler in handlers.items():
            if handler is not None:
                _signal.signal(number, handler)


def is_worker() -> bool:
    """Whether this process is a worker that has been started as a program of its own."""
    return bool(getattr(sys.modules.get("tapster"), "_is_worker", False))


def _plain(name: str, value: Any) -> Any:
    """A value of an option as JSON knows it."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name}: {value!r} is not Unicode, which options have to be") from None
        return value
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, os.PathLike):
        return _plain(name, os.fsdecode(value))
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        if name == "env":
            return [_plain(name, f"{key}={text}") for key, text in value.items()]
        return {str(key): _plain(name, item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(name, item) for item in value]
    if callable(value):
        raise TypeError(f"{name}: functions are read from a file of gunicorn; write config='gunicorn.conf.py'")
    raise TypeError(f"{name}: a {type(value).__name__} cannot be the value of an option")


def _script() -> list[str]:
    """The words that start this program anew, from everywhere."""
    words = original_words()
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is None and file is not None and os.path.isfile(file):
        for index, word in enumerate(words[1:], 1):
            if not word.startswith("-") and os.path.basename(word) == os.path.basename(file):
                words[index] = os.path.abspath(file)
                break
    return [sys.executable or words[0], *words[1:]]


def _command() -> list[str]:
    """The words that start the command `tapster` in an interpreter like this one."""
    # As `multiprocessing` does.
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    return [sys.executable or original_words()[0], *_args_from_interpreter_flags(), "-m", "tapster"]


def _title(app: object) -> str:
    """What the program is called in titles and messages."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name: str | None = spec.name if spec is not None else getattr(main, "__file__", None)
    if name is None:
        return type(app).__name__
    return (name[: -len(".__main__")] if name.endswith(".__main__") else name).rpartition("/")[2]


def _thread_warnings() -> list[str]:
    """What the log is told about threads that a fork does not have."""
    # The object of a thread keeps, in a fork, the number that the thread had before.
    own = threading.get_native_id()
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = []
    try:
        tasks = sorted(int(task) for task in os.listdir("/proc/self/task"))
    except OSError:
        tasks = [ident for ident in known if ident is not None]
    for task in tasks:
        if task == own:
            continue
        name = known.get(task)
        if name is None:
            try:
                with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
                    name = file.read().strip()
            except OSError:
                # It has ended.
                continue
        names.append(name)
    if not names:
        return []
    shown = ", ".join(names[:_NAMES_MAX]) + (f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else "")
    return [
        f"the program has started {len(names)} other thread{'s' * (len(names) > 1)} ({shown}), which the workers do not have, since they are "
        "forks of it, and locks that they hold just then stay held: start them in the workers (os.register_at_fork), or serve the "
        "application by its name ('module:app')"
    ]
