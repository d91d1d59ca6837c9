"""What an application can import from the server that runs it."""

import sys
import threading


class RequestTimeout(TimeoutError):
    """Raised in a request that has run for longer than --timeout.

    Who catches it can still answer, within --timeout-grace. Uncaught, it makes the server answer 504.
    """

    # The request in words.
    request = ""

    def __str__(self):
        return super().__str__() or self.request

    def __reduce__(self):
        return RequestTimeout, (str(self),)


def _exception(request):
    """The class that is raised in this request: the interpreter takes a class and makes the exception itself."""
    body = {"request": request, "__module__": __name__, "__doc__": RequestTimeout.__doc__, "_came_out": False}
    return type("RequestTimeout", (RequestTimeout,), body)


def _stacks():
    """The stacks of all threads. It takes no lock: the thread that does not go on may hold it."""
    # Not with the module: what it imports in turn would double the time of a small application's boot.
    import traceback

    names = {ident: thread.name for ident, thread in dict(threading._active).items()}
    lines = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            lines.append(f"Thread {names.get(ident, ident)} (most recent call last):\n")
            lines += traceback.format_stack(frame)
    return "".join(lines).rstrip()
