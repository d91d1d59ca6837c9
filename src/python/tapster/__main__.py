"""The command `tapster`: `pip install tapster`, `python -m tapster`.

Whoever starts it has started an ordinary interpreter. That one only looks at the arguments; it becomes (by exec) the master, which
runs in an interpreter that loads nothing and runs no code but this: no site, no .pth file, no sitecustomize, no variable of Python.
Each worker is forked by the master, and then executes what the user has started: an ordinary interpreter again.
"""

import os
import sys

# Not `signal`, whose enums take as long to make as all else here.
import _signal  # type: ignore[import-not-found]

import tapster

# As typing.TYPE_CHECKING, whose module takes longer to load than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# As `birth::VARIABLE`.
WORKER = "TAPSTER_WORKER_FD"

# Longest number of a descriptor: what fits an int of C.
DIGITS_MAX = 9

# The signals that an operator sends to a server. Handlers of the interpreter, or of what it loads at its start, would be called
# beside those of the worker.
ORDERS = ("TERM", "QUIT", "INT", "HUP", "USR1", "USR2", "TTIN", "TTOU", "WINCH")

# The master's code: the extension by its path, and no import.
MASTER = """\
import _imp, sys
path, count, *words = sys.argv[1:]
spec = type(sys.__spec__)("tapster._tapster", None, origin=path)
module = _imp.create_dynamic(spec)
_imp.exec_dynamic(module)
module.run_bare(words[:int(count)], words[int(count):])
"""


def original_words() -> list[str]:
    """The command line of the interpreter."""
    if hasattr(sys, "orig_argv"):
        return list(sys.orig_argv)
    # Before Python 3.10.
    with open("/proc/self/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]


def started_by(own: list[str]) -> list[str]:
    """The words in front of the server's own arguments: the interpreter, its options, the script or `-m tapster`."""
    words = original_words()
    count = len(words) - len(own)
    if count < 2 or words[count:] != own:
        # Called by another program, with arguments of its choice.
        return [sys.executable, "-m", "tapster"]
    return [sys.executable, *words[1:count]]


def started_with() -> dict[str, str]:
    """The environment for the master and its workers: the present one, with the variables of the interpreter as they were at its
    start, since each worker is to start as this one has. A launcher that measures puts its directory on PYTHONPATH, and may take it
    out again once it is loaded, for the sake of other programs (OpenTelemetry's, until 0.62).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = [os.fsdecode(entry).partition("=") for entry in file.read().split(b"\0")]
    except OSError:
        return dict(os.environ)
    given = {name: value for name, _, value in entries if name.startswith("PYTHON")}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}, **given}


def main() -> "NoReturn":
    """Serves until the server is told to stop; the process ends here."""
    for name in ORDERS:
        _signal.signal(getattr(_signal, "SIG" + name), _signal.SIG_DFL)
    # Gone before code of the application could see it, or a program that it starts.
    worker = os.environ.pop(WORKER, None)
    try:
        from . import _tapster
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:3]))
        print(f"tapster: it is installed for another Python than this one, {version}: {error}", file=sys.stderr)
        print(f"tapster: install it with {sys.executable} -m pip install --force-reinstall tapster", file=sys.stderr)
        sys.exit(1)
    if worker is not None:
        if not worker.isdigit() or len(worker) > DIGITS_MAX:
            sys.exit(f"tapster: {WORKER}: not a descriptor")
        tapster._is_worker = True
        _tapster.run_worker(int(worker))
    if not sys.executable:
        sys.exit("tapster: this interpreter does not know its own path (sys.executable), by which the server is started")
    own = sys.argv[1:]
    words = started_by(own)
    _tapster.run(words, own)
    command = [sys.executable, "-I", "-S", "-c", MASTER, _tapster.__file__, str(len(words)), *words, *own]
    os.execve(sys.executable, command, started_with())


if __name__ == "__main__":
    main()
