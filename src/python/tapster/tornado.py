"""An application of Tornado 6 as a WSGI application, for handlers that end.

    from tapster.tornado import WSGIAdapter

    application = WSGIAdapter(tornado.web.Application([(r"/", MainHandler)]))

Each call runs an event loop on its own thread until the answer and what the handler has begun are done. So `async def` handlers
work, and wait for each other only as far as the server has threads (`--threads`). What needs a loop that goes on between
requests does not work: WebSockets, callbacks for later, `IOLoop.current()` outside of a handler.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import functools
import logging
import threading
import types
import urllib.parse
import weakref
from typing import TYPE_CHECKING, Any

from tornado import httputil, web
from tornado.iostream import StreamClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NoReturn

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["WSGIAdapter"]

# Bytes that are read of a request's body at once, as Tornado's own server does.
_CHUNK = 64 * 1024

# Seconds that a cancelled task has for its end.
_CANCEL = 1.0

# Fields that belong to a connection, which a WSGI application must not set (PEP 3333, RFC 9110 section 7.6.1).
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)

# What a client is told whose request takes the connection for itself.
_NO_CONNECTION = "WebSockets need Tornado's own HTTP server: a WSGI application has no connection for itself"

_log = logging.getLogger("tornado.application")

# The call that a task belongs to.
_current: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("tapster_tornado_call", default=None)

# The event loop of each thread.
_threads = threading.local()


class WSGIAdapter:
    """A `tornado.web.Application`, or any other `HTTPServerConnectionDelegate`, as a WSGI application.

    The request's path is SCRIPT_NAME and PATH_INFO together, in the spelling of the client. `linger` says for how many seconds
    tasks that a handler has started may go on after its answer; then they are cancelled, and the log says so.
    """

    def __init__(self, application: httputil.HTTPServerConnectionDelegate, *, linger: float = 5.0) -> None:
        if not callable(getattr(application, "start_request", None)):
            raise TypeError(
                f"WSGIAdapter takes a tornado.web.Application, not {type(application).__name__}; "
                "an application that is WSGI already needs no adapter"
            )
        self.application = application
        self.linger = linger

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = _Call(self.application, environ, _loop())
        try:
            call.drive(lambda: call.head is not None or call.finished)
            if call.head is None:
                raise RuntimeError("the handler has finished without an answer")
            line, fields = call.head
            start_response(f"{line.code} {line.reason}", fields)
        except BaseException:
            # Also the server's, for a request that takes too long, and for a head that HTTP cannot have.
            call.abandon(linger=0)
            raise
        return _Blocks(call, self.linger)


def _loop() -> asyncio.AbstractEventLoop:
    """The loop of this thread. It lasts, because clients and connections of the application are bound to theirs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("WSGIAdapter runs an event loop of its own, and this thread runs one already")
    loop: asyncio.AbstractEventLoop | None = getattr(_threads, "loop", None)
    if loop is None or loop.is_closed():
        loop = _threads.loop = asyncio.new_event_loop()
        loop.set_task_factory(_task)
    return loop


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coroutine, loop=loop, **more)
    call = _current.get()
    if call is not None:
        call.tasks.add(task)
        task.add_done_callback(call.ended)
    return task


class _Blocks:
    """The body of an answer, which runs the loop for each of its blocks."""

    def __init__(self, call: _Call, linger: float) -> None:
        self._call = call
        self._linger = linger

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        call = self._call
        if not call.blocks and not call.finished:
            call.drive(lambda: call.blocks or call.finished)
        if not call.blocks:
            if call.broken:
                raise RuntimeError("a handler has failed behind its first flush, so that its answer is cut; Tornado has logged why")
            raise StopIteration
        block, taken = call.blocks.popleft()
        if not taken.done():
            taken.set_result(None)
        return block

    def close(self) -> None:
        self._call.abandon(self._linger)


class _Call(httputil.HTTPConnection):
    """One request and its answer; to Tornado, the connection of both."""

    def __init__(
        self,
        application: httputil.HTTPServerConnectionDelegate,
        environ: WSGIEnvironment,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.head: tuple[httputil.ResponseStartLine, list[tuple[str, str]]] | None = None
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.blocks: collections.deque[tuple[bytes, asyncio.Future[None]]] = collections.deque()
        self.finished = False
        # Whether the answer ends without being whole.
        self.broken = False
        # Tornado asks for these.
        self.context = types.SimpleNamespace(
            remote_ip=environ.get("REMOTE_ADDR"), protocol=environ["wsgi.url_scheme"], address_family=None
        )
        self.stream = None
        self.no_keep_alive = False
        self._application = application
        self._environ = environ
        self._loop = loop
        self._on_close: Callable[[], object] | None = None
        self._awaited: Callable[[], object] | None = None
        self._failure: BaseException | None = None
        self._ended = False
        context = contextvars.copy_context()
        context.run(_current.set, self)
        self._main = context.run(loop.create_task, self._run())

    def drive(self, awaited: Callable[[], object]) -> None:
        """Runs the loop until something is so, or the request has failed."""
        self._awaited = awaited
        try:
            # A handler may have stopped the loop, which is not its own.
            while not awaited() and self._failure is None:
                self._loop.run_forever()
        finally:
            self._awaited = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def abandon(self, linger: float) -> None:
        """The call is over. A handler whose client has left is told so, as by Tornado's server; what it has begun may go on."""
        if self._ended:
            return
        self._ended = True
        left, self._on_close = self._on_close, None
        for _, taken in self.blocks:
            _fail(taken)
        self.blocks.clear()
        if not self.finished:
            self.finished = True
            if left is not None:
                self._loop.call_soon(left)
        self._loop.run_until_complete(self._settle(linger))
        if self._failure is not None:
            _log.error("%s: an error after the answer", self._words(), exc_info=self._failure)

    def ended(self, task: asyncio.Task[Any]) -> None:
        """A task of the call has ended. If it was the last one, and not in order, nobody answers any more."""
        if self.finished or self._failure is not None or not all(other.done() for other in self.tasks):
            return
        if task.cancelled():
            self._failure = RuntimeError("the handler was cancelled before its answer was complete")
        else:
            self._failure = task.exception()
        self._look()

    async def _run(self) -> None:
        try:
            delegate = self._application.start_request(self, self)
            line, headers = _request(self._environ)
            await _done(delegate.headers_received(line, headers))
            for chunk in _chunks(self._environ):
                if self.finished:
                    # It has answered without the rest, which nobody is to wait for.
                    delegate.on_connection_close()
                    break
                await _done(delegate.data_received(chunk))
            else:
                delegate.finish()
        except httputil.HTTPInputError as error:
            self._refuse(400, "Bad Request", str(error))
        except Exception as error:
            self._failure = error
            self._look()

    async def _settle(self, linger: float) -> None:
        late = await self._rest(linger)
        if not late:
            return
        _log.warning(
            "%s: %s still ran %g s after the answer and was cancelled: under WSGI nothing runs between requests",
            self._words(),
            _names(late),
            linger,
        )
        for task in late:
            task.cancel()
        stubborn = await self._rest(_CANCEL, cancel=True)
        if stubborn:
            _log.error(
                "%s: %s has not ended though it was cancelled, and takes time of later requests", self._words(), _names(stubborn)
            )

    async def _rest(self, seconds: float, *, cancel: bool = False) -> set[asyncio.Task[Any]]:
        """The tasks that have not ended after so many seconds, nor those that they have begun meanwhile."""
        until = self._loop.time() + seconds
        known = {task for task in self.tasks if not task.done()}
        while True:
            # What was called for later in this round becomes a task.
            await asyncio.sleep(0)
            running = {task for task in self.tasks if not task.done()}
            rest = until - self._loop.time()
            if not running or rest <= 0:
                return running
            if cancel:
                for task in running - known:
                    task.cancel()
                known |= running
            await asyncio.wait(running, timeout=rest)

    def _words(self) -> str:
        return f"{self._environ['REQUEST_METHOD']} {self._environ.get('PATH_INFO', '')}"

    def _refuse(self, code: int, phrase: str, reason: str) -> None:
        if self.head is None:
            body = f"{reason}\n".encode("utf-8", "replace")
            headers = httputil.HTTPHeaders({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))})
            self.write_headers(httputil.ResponseStartLine("HTTP/1.1", code, phrase), headers, body)
        self.finish()

    def _look(self) -> None:
        """Stops the loop when that has come what the thread waits for."""
        if self._awaited is not None and (self._failure is not None or self._awaited()):
            self._loop.stop()

    # What Tornado's handlers do with a connection.

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        assert isinstance(start_line, httputil.ResponseStartLine)
        if start_line.code < 200:
            # Nothing can follow what would be no answer yet; the handler learns it when it takes the connection.
            self._refuse(501, "Not Implemented", _NO_CONNECTION)
            return self.write(b"")
        fields = [(name, value) for name, value in headers.get_all() if name.lower() not in _HOP_BY_HOP]
        self.head = (start_line, fields)
        return self.write(chunk or b"")

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        taken: asyncio.Future[None] = self._loop.create_future()
        if self.finished:
            _fail(taken)
            return taken
        if not chunk or self._environ["REQUEST_METHOD"] == "HEAD":
            taken.set_result(None)
        else:
            # Tornado may go on with a buffer of its own.
            self.blocks.append((bytes(chunk), taken))
        self._look()
        return taken

    def finish(self) -> None:
        self.finished = True
        self._look()

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        self._on_close = callback

    def set_body_timeout(self, timeout: float) -> None:
        """The server's own: `--body-timeout`."""

    def set_max_body_size(self, size: int) -> None:
        """The server's own: `--max-body`."""

    def detach(self) -> NoReturn:
        # To Tornado the handler has finished with this, so it answers nothing itself.
        self._refuse(501, "Not Implemented", _NO_CONNECTION)
        raise web.HTTPError(501, _NO_CONNECTION)


def _telling(send_error: Callable[..., None]) -> Callable[..., None]:
    """The same `RequestHandler.send_error`, which tells the call when the error comes too late to be an answer.

    Tornado logs such an error, and ends the answer as if it were whole. This is the one place that all of them pass.
    """

    @functools.wraps(send_error)
    def told(handler: web.RequestHandler, *args: Any, **more: Any) -> None:
        call = handler.request.connection
        if isinstance(call, _Call) and call.head is not None and not call.finished:
            call.broken = True
        send_error(handler, *args, **more)

    return told


web.RequestHandler.send_error = _telling(web.RequestHandler.send_error)  # type: ignore[method-assign]


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(StreamClosedError())
        # Nobody has to look at it.
        future.exception()


def _names(tasks: set[asyncio.Task[Any]]) -> str:
    return ", ".join(sorted(getattr(task.get_coro(), "__qualname__", "a task") for task in tasks))


async def _done(result: Any) -> None:
    if result is not None:
        await result


def _request(environ: WSGIEnvironment) -> tuple[httputil.RequestStartLine, httputil.HTTPHeaders]:
    """Request line and headers as Tornado's own server would have read them."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    spelled = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("?")[0]
    # A WSGI middleware may have changed the path since.
    if not spelled or urllib.parse.unquote_to_bytes(spelled.encode("latin-1")) != path.encode("latin-1"):
        spelled = urllib.parse.quote(path.encode("latin-1"), safe="/~!$&'()*+,;=:@")
    headers = httputil.HTTPHeaders()
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            headers.add(name[5:].replace("_", "-"), value)
    for name, field in (("CONTENT_TYPE", "Content-Type"), ("CONTENT_LENGTH", "Content-Length")):
        if environ.get(name):
            headers[field] = environ[name]
    version = environ.get("SERVER_PROTOCOL", "HTTP/1.1")
    target = f"{spelled or '/'}?{query}" if query else spelled or "/"
    return httputil.RequestStartLine(environ["REQUEST_METHOD"], target, version), headers


def _chunks(environ: WSGIEnvironment) -> Iterator[bytes]:
    body = environ["wsgi.input"]
    # A body without a length ends by itself where the server says so (`wsgi.input_terminated`), else there is none.
    left = int(environ.get("CONTENT_LENGTH") or 0)
    endless = bool(environ.get("wsgi.input_terminated")) and not environ.get("CONTENT_LENGTH")
    while endless or left > 0:
        chunk = body.read(_CHUNK if endless else min(_CHUNK, left))
        if not chunk:
            break
        left -= len(chunk)
        yield chunk
