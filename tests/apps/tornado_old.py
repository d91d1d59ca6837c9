"""Applications of Tornado 4 and 5, whose releases made WSGI applications themselves."""

import collections
import collections.abc
import os
import ssl
import threading
import time

# What these releases use of the standard library and later Pythons have no more.
if not hasattr(collections, "MutableMapping"):
    collections.MutableMapping = collections.abc.MutableMapping
if not hasattr(ssl, "match_hostname"):
    ssl.match_hostname = None

import tornado.web
import tornado.wsgi

if os.environ.get("ANY_THREAD"):
    # As the manual says for Tornado 5: its handlers ask each thread for an event loop.
    import asyncio

    from tornado.platform.asyncio import AnyThreadEventLoopPolicy

    asyncio.set_event_loop_policy(AnyThreadEventLoopPolicy())

HERE = os.path.dirname(os.path.abspath(__file__))


class Main(tornado.web.RequestHandler):
    def get(self, name="world"):
        self.write("hello %s %s %s" % (name, self.request.uri, self.get_arguments("x")))

    def post(self):
        files = {field: [(file.filename, len(file.body)) for file in sent] for field, sent in self.request.files.items()}
        self.write({"arguments": sorted(self.request.body_arguments), "files": files, "version": tornado.version})


class Slow(tornado.web.RequestHandler):
    def get(self):
        time.sleep(0.3)
        self.write(threading.current_thread().name)


class Cookies(tornado.web.RequestHandler):
    def get(self):
        self.set_cookie("one", "1")
        self.redirect("/?x=1")


class Pieces(tornado.web.RequestHandler):
    def get(self):
        for number in range(3):
            self.write("%d\n" % number)
            self.flush()


class Fail(tornado.web.RequestHandler):
    def get(self, how):
        if how == "http":
            raise tornado.web.HTTPError(418, reason="I am a teapot")
        raise RuntimeError("this was to happen")


class Later(tornado.web.RequestHandler):
    @tornado.web.asynchronous
    def get(self):
        """It never ends, which WSGI cannot have."""


HANDLERS = [
    (r"/", Main),
    (r"/hello/(.*)", Main),
    (r"/slow", Slow),
    (r"/cookies", Cookies),
    (r"/pieces", Pieces),
    (r"/fail/(.*)", Fail),
    (r"/later", Later),
    (r"/files/(.*)", tornado.web.StaticFileHandler, {"path": HERE}),
]

adapted = tornado.wsgi.WSGIAdapter(tornado.web.Application(HANDLERS))
application = tornado.wsgi.WSGIApplication(HANDLERS)
