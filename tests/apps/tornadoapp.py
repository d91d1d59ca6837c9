"""A Tornado application as its users write them, for Tornado's own server and for the adapter (tests/tornado.rs)."""

import asyncio
import os

import tornado.web
import tornado.websocket
import tornado.wsgi

HERE = os.path.dirname(os.path.abspath(__file__))


def note(text):
    """Leaves a line where the test looks for it."""
    path = os.environ.get("TORNADO_NOTES")
    if path:
        with open(path, "a") as file:
            file.write(text + "\n")


class Main(tornado.web.RequestHandler):
    def get(self, name="world"):
        self.write(f"hello {name} {self.request.path} {self.get_query_arguments('x')}")

    async def post(self, name="world"):
        await asyncio.sleep(0.001)
        files = {field: [(file.filename, len(file.body)) for file in sent] for field, sent in self.request.files.items()}
        self.write({"arguments": self.request.body_arguments and sorted(self.request.body_arguments), "files": files})

    def on_finish(self):
        note(f"finished {self.request.method} {self.get_status()}")


class Facts(tornado.web.RequestHandler):
    def get(self):
        request = self.request
        self.write(
            {
                "method": request.method,
                "uri": request.uri,
                "path": request.path,
                "query": request.query,
                "arguments": {name: self.get_arguments(name) for name in request.arguments},
                "protocol": request.protocol,
                "remote": request.remote_ip,
                "cookies": {name: morsel.value for name, morsel in request.cookies.items()},
                "x": request.headers.get("X-Field"),
            }
        )


class Cookies(tornado.web.RequestHandler):
    def get(self):
        self.set_cookie("one", "1")
        self.set_cookie("two", "2", httponly=True)
        self.redirect("/facts?from=cookies")


class Stream(tornado.web.RequestHandler):
    async def get(self):
        for number in range(int(self.get_argument("count", "3"))):
            self.write(f"{number}\n")
            await self.flush()
            await asyncio.sleep(float(self.get_argument("pause", "0")))
        note("streamed to its end")

    def on_connection_close(self):
        note("the client has left")


@tornado.web.stream_request_body
class Upload(tornado.web.RequestHandler):
    async def prepare(self):
        self.size = self.chunks = 0

    async def data_received(self, chunk):
        await asyncio.sleep(0)
        self.size += len(chunk)
        self.chunks += 1

    def put(self):
        assert self.chunks > 1 or self.size < 65536, "it comes in pieces"
        self.write(f"{self.size}")


@tornado.web.stream_request_body
class Deny(tornado.web.RequestHandler):
    def prepare(self):
        raise tornado.web.HTTPError(403)

    def data_received(self, chunk):
        raise AssertionError("nobody wants it")


@tornado.web.stream_request_body
class Enough(tornado.web.RequestHandler):
    """Answers before the body is there."""

    def data_received(self, chunk):
        if not self._finished:
            self.finish("enough")

    def put(self):
        raise AssertionError("it has answered")


class Fail(tornado.web.RequestHandler):
    async def get(self, how):
        if how.startswith("late"):
            if "length" in how:
                self.set_header("Content-Length", "100")
            self.write("begun")
            await self.flush()
            if "more" in how:
                self.write(" and more")
            if "caught" in how:
                # By the handler itself, which ends its answer.
                try:
                    raise RuntimeError("no matter")
                except RuntimeError:
                    self.finish(" and ended")
                    self.send_error(500)
                    return
            if "http" in how:
                raise tornado.web.HTTPError(404)
            if "finish" in how:
                raise tornado.web.Finish("enough")
        if how == "http":
            raise tornado.web.HTTPError(418, reason="I am a teapot")
        if how == "finish":
            raise tornado.web.Finish("enough")
        raise RuntimeError(f"failed: {how}")


class Behind(tornado.web.RequestHandler):
    """Goes on after its answer."""

    async def get(self):
        async def later(seconds, text):
            await asyncio.sleep(seconds)
            note(text)

        loop = asyncio.get_running_loop()
        for seconds, text in ((0.01, "done behind the answer"), (1000, "never")):
            loop.create_task(later(seconds, text))
        self.finish("answered")


class Chain(tornado.web.RequestHandler):
    """Begins a task that begins the next one, without end."""

    async def get(self):
        async def link(number):
            await asyncio.sleep(0.02)
            if number == 3:
                note("the chain goes on")
            asyncio.get_running_loop().create_task(link(number + 1))

        asyncio.get_running_loop().create_task(link(0))
        self.finish("answered")


class Tasks(tornado.web.RequestHandler):
    """Says what runs beside it."""

    async def get(self):
        names = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - {asyncio.current_task()}}
        self.write(" ".join(sorted(names)))


class NoHead(tornado.web.RequestHandler):
    """Its answer has a head that HTTP cannot have."""

    async def get(self):
        self.set_header("X Y", "z")
        self.write("begun")
        try:
            await self.flush()
        finally:
            note("the flush has ended")


class Gone(tornado.web.RequestHandler):
    """Ends in a way that Tornado makes no answer of."""

    async def get(self, how):
        if how == "detached":
            self.detach()
        if how == "late":
            self.write("begun")
            await self.flush()
        raise BaseException("no ordinary exception")


class Stopping(tornado.web.RequestHandler):
    """Stops a loop that is not its own."""

    async def get(self):
        for text in ("one ", "two "):
            self.write(text)
            await self.flush()
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0.01)
        self.write("three")


class Together(tornado.web.RequestHandler):
    async def get(self):
        found = await asyncio.gather(*(asyncio.sleep(0.01, result=number) for number in range(20)))
        loop = asyncio.get_running_loop()
        found.append(await loop.run_in_executor(None, sum, found))
        self.write(",".join(map(str, found)))


class Sleep(tornado.web.RequestHandler):
    async def get(self):
        await asyncio.sleep(1000)


class Echo(tornado.websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message)


def beside(environ, start_response):
    """A WSGI application beside the handlers, as Tornado's page on `FallbackHandler` has it."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ['wsgi.input'].read().decode()}".encode()]


def make():
    return tornado.web.Application(
        [
            (r"/", Main),
            (r"/hello/(.*)", Main),
            (r"/facts.*", Facts),
            (r"/cookies", Cookies),
            (r"/stream", Stream),
            (r"/upload", Upload),
            (r"/deny", Deny),
            (r"/enough", Enough),
            (r"/fail/(.*)", Fail),
            (r"/behind", Behind),
            (r"/together", Together),
            (r"/chain", Chain),
            (r"/tasks", Tasks),
            (r"/no-head", NoHead),
            (r"/gone/(.*)", Gone),
            (r"/stopping", Stopping),
            (r"/sleep", Sleep),
            (r"/socket", Echo),
            (r"/files/(.*)", tornado.web.StaticFileHandler, {"path": HERE}),
            (r"/beside/.*", tornado.web.FallbackHandler, {"fallback": tornado.wsgi.WSGIContainer(beside)}),
        ],
        static_path=HERE,
        compress_response=True,
    )


def application(environ, start_response):
    """Made at the first request, since Tornado's own server uses this module too, where no adapter is."""
    global application
    from tapster.tornado import WSGIAdapter

    application = WSGIAdapter(make(), linger=0.2)
    return application(environ, start_response)
