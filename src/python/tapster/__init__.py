"""Tapster, a server for WSGI applications, as Python programs and applications see it.

A program serves an application with `serve`, a test with `start`. An application can import what the server raises in it.
"""

# As typing.TYPE_CHECKING: a worker of a small application loads hardly more than this module, and not `__future__`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._call import serve as serve
    from ._server import Server as Server
    from ._server import start as start

__all__ = ["RequestTimeout", "Server", "serve", "start"]

# Where names come from that are loaded when they are asked for.
_HOMES = {"serve": "_call", "start": "_server", "Server": "_server"}


class RequestTimeout(TimeoutError):
    """Raised in a request that has run for longer than --timeout.

    Who catches it can still answer, within --timeout-grace. Uncaught, it makes the server answer 504.
    """

    # The request in words.
    request = ""

    def __str__(self) -> str:
        return super().__str__() or self.request

    def __reduce__(self) -> "tuple[type[RequestTimeout], tuple[str]]":
        return RequestTimeout, (str(self),)


def _exception(request: str) -> type[RequestTimeout]:
    """The class that is raised in this request: the interpreter takes a class and makes the exception itself."""
    body = {"request": request, "__module__": __name__, "__doc__": RequestTimeout.__doc__, "_came_out": False}
    return type("RequestTimeout", (RequestTimeout,), body)


def __getattr__(name: str) -> "Any":
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "__path__" not in globals():
        # The module of a server that has an interpreter of its own.
        raise AttributeError(f"tapster.{name} is there for programs that a Python runs: pip install tapster")
    from importlib import import_module

    return getattr(import_module("." + home, __name__), name)
