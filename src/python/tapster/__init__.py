"""What an application can import from the server that runs it."""


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
