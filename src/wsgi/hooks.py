"""The functions of a gunicorn file that the server calls, and what they are given: stand-ins for gunicorn's own objects."""

import itertools
import os
import sys

# How many arguments gunicorn gives each.
ARGUMENTS = {
    "on_starting": 1,
    "on_reload": 1,
    "when_ready": 1,
    "pre_fork": 2,
    "post_fork": 2,
    "post_worker_init": 1,
    "worker_int": 1,
    "worker_abort": 1,
    "pre_exec": 1,
    "pre_request": 2,
    "child_exit": 2,
    "worker_exit": 2,
    "nworkers_changed": 3,
    "on_exit": 1,
}

# The least and the most arguments of post_request.
POST_REQUEST = (2, 4)

# A function takes any number of further arguments (code.co_flags, CO_VARARGS).
VARARGS = 0x04

# The numbers that `logging` has for levels.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "exception": 40, "critical": 50}


def arity(function, signature):
    """The positional arguments that a function takes; None: any number. `signature` returns that of the module inspect."""
    if type(function) is type(arity) and not function.__dict__:
        code = function.__code__
        return None if code.co_flags & VARARGS else code.co_argcount
    parameters = signature()(function).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return sum(1 for parameter in parameters if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD))


def resolved(name, value, signature):
    """The function that a hook's value is or names, as it is to be called with all arguments that gunicorn has for it."""
    function = value
    if isinstance(value, str):
        module, dot, attribute = value.rpartition(".")
        if not dot:
            raise TypeError(f"{name} = {value!r} names no function: write module.function")
        function = getattr(__import__(module, fromlist=[attribute]), attribute)
    if not callable(function):
        raise TypeError(f"{name} must be a function, not {function!r}")
    takes = arity(function, signature)
    if name == "post_request":
        least, most = POST_REQUEST
        if takes is not None and not least <= takes <= most:
            raise TypeError(f"{name} must take {least} to {most} arguments (worker, req, environ, resp), not {takes}")
        if takes in (2, 3):
            return lambda *arguments: function(*arguments[:takes])
        return function
    if takes is not None and takes != ARGUMENTS[name]:
        raise TypeError(f"{name} must take {ARGUMENTS[name]} arguments, not {takes}")
    return function


class Log:
    """The error log, by the methods of gunicorn's logger."""

    def __init__(self, write, level, traceback):
        self._write = write
        self._traceback = traceback
        self.loglevel = level

    def log(self, level, message, *arguments, exc_info=None, **_):
        if isinstance(level, str):
            level = LEVELS.get(level.lower(), LEVELS["info"])
        text = str(message)
        if arguments:
            # As in `logging`: one dict has the values by their names.
            only = arguments[0]
            try:
                text = text % (only if len(arguments) == 1 and isinstance(only, dict) and only else arguments)
            except (TypeError, ValueError, KeyError):
                text = f"{text} {arguments!r}"
        if exc_info:
            error = exc_info
            if isinstance(error, tuple):
                error = error[1]
            elif not isinstance(error, BaseException):
                error = sys.exc_info()[1]
            if error is not None:
                text = text + "\n" + self._traceback(error)
        self._write(level, text)

    def debug(self, message, *arguments, **options):
        self.log(LEVELS["debug"], message, *arguments, **options)

    def info(self, message, *arguments, **options):
        self.log(LEVELS["info"], message, *arguments, **options)

    def warning(self, message, *arguments, **options):
        self.log(LEVELS["warning"], message, *arguments, **options)

    warn = warning

    def error(self, message, *arguments, **options):
        self.log(LEVELS["error"], message, *arguments, **options)

    def exception(self, message, *arguments, **options):
        self.log(LEVELS["error"], message, *arguments, **{"exc_info": True, **options})

    def critical(self, message, *arguments, **options):
        self.log(LEVELS["critical"], message, *arguments, **options)

    def access(self, resp, req, environ, request_time):
        """Does nothing: the server writes the access log."""

    def reopen_files(self):
        """Does nothing: the server opens its logs anew at SIGUSR1."""

    def close_on_exec(self):
        """Does nothing: no descriptor of the server survives exec."""

    @property
    def error_log(self):
        import logging

        return logging.getLogger("gunicorn.error")

    @property
    def access_log(self):
        import logging

        return logging.getLogger("gunicorn.access")


class Config:
    """The settings by gunicorn's names, those of the file's names that are no settings, and None for settings without a value."""

    def __init__(self, settings, names):
        self.__dict__.update((name, value) for name, value in settings.items() if value is not None)
        self.__dict__["_settings"] = settings
        self.__dict__["_names"] = names

    def __getattr__(self, name):
        names = self.__dict__["_names"]
        if name in names and not name.startswith("__"):
            return names[name]
        if name in self.__dict__["_settings"]:
            return None
        raise AttributeError(f"gunicorn has no setting {name!r}, and the file does not set it")

    @property
    def env(self):
        return dict(pair.split("=", 1) for pair in self.__dict__.get("raw_env", ()))

    @property
    def address(self):
        addresses = []
        for bind in self.__dict__.get("bind", ()):
            host, _, port = bind.rpartition(":")
            is_tcp = port.isdigit() and not bind.startswith(("unix:", "fd:"))
            addresses.append((host.strip("[]"), int(port)) if is_tcp else bind[5:] if bind.startswith("unix:") else bind)
        return addresses

    @property
    def is_ssl(self):
        return False

    @property
    def worker_class_str(self):
        return "gthread" if (self.__dict__.get("threads") or 1) > 1 else "sync"


class Server:
    """The master, as hooks know gunicorn's arbiter."""

    def __init__(self, log, cfg, pid, num_workers):
        self.log = log
        self.cfg = cfg
        self.pid = pid
        self.num_workers = num_workers
        self.proc_name = cfg.proc_name
        self.address = cfg.address
        self.timeout = cfg.timeout
        self.master_name = "Master"
        self.worker_age = 0
        # Workers by their process ids.
        self.WORKERS = {}
        self.LISTENERS = []


class App:
    """The application, before and after it is loaded."""

    def __init__(self):
        self.callable = None

    def wsgi(self):
        if self.callable is None:
            raise RuntimeError("the application is not loaded yet; use post_worker_init, which runs after that")
        return self.callable


class Worker:
    """A worker."""

    def __init__(self, server, pid, age):
        self.log = server.log
        self.cfg = server.cfg
        self.pid = pid
        self.ppid = server.pid
        self.age = age
        self.timeout = server.timeout
        self.alive = True
        self.booted = False
        self.aborted = False
        self.app = App()
        self.wsgi = None
        self.sockets = []
        self.max_requests = server.cfg.max_requests or sys.maxsize
        self._requests = int
        # Where requests have hooks: those that have begun, which includes the one that is served.
        self._begun = None
        # Threads and applications share it.
        self._count = itertools.count(1)

    @property
    def nr(self):
        return self._requests() if self._begun is None else self._begun

    def notify(self):
        """Does nothing: the server sees by itself whether a worker makes progress."""

    def __str__(self):
        return f"<Worker {self.pid}>"

    __repr__ = __str__


def header_name(key):
    """The name of the field that a variable of the environ stands for; None: it stands for none."""
    if key.startswith("HTTP_"):
        return key[5:].replace("_", "-")
    if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        return key.replace("_", "-")
    return None


class Request:
    """The request, by the attributes of gunicorn's. What pre_request changes of it goes into the environ."""

    def __init__(self, environ):
        self._environ = environ
        self.method = environ["REQUEST_METHOD"]
        self.uri = environ["RAW_URI"]
        before, _, self.fragment = self.uri.partition("#")
        self.path, _, self.query = before.partition("?")
        self._headers = self._fields = None
        self.scheme = environ["wsgi.url_scheme"]
        self.trailers = []

    @property
    def headers(self):
        """Pairs of names in upper case and values. The values of a field that came several times are joined."""
        if self._headers is None:
            named = ((header_name(key), value) for key, value in self._environ.items())
            self._headers = [(name, value) for name, value in named if name is not None]
            self._fields = list(self._headers)
        return self._headers

    @headers.setter
    def headers(self, headers):
        self.headers
        self._headers = headers

    @property
    def version(self):
        major, _, minor = self._environ["SERVER_PROTOCOL"][5:].partition(".")
        return int(major), int(minor or 0)

    @property
    def remote_addr(self):
        address = self._environ["REMOTE_ADDR"]
        return (address, int(self._environ.get("REMOTE_PORT") or 0)) if address else ""

    @property
    def peer_addr(self):
        return self.remote_addr

    @property
    def body(self):
        return self._environ["wsgi.input"]

    def get_header(self, name):
        name = name.upper()
        return next((value for known, value in self.headers if known == name), None)

    def should_close(self):
        return (self.get_header("CONNECTION") or "").strip().lower() == "close"

    def apply(self, before):
        """Carries what has changed since `before`, the values of that time, into the environ."""
        environ = self._environ
        if self._headers is not None and self._headers != self._fields:
            for name, _ in self._fields:
                key = name.replace("-", "_")
                environ.pop(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key, None)
            for name, value in self._headers:
                key = name.upper().replace("-", "_")
                key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key
                environ[key] = f"{environ[key]},{value}" if key in environ else value
        method, uri, path, query, scheme = before
        if self.method != method:
            environ["REQUEST_METHOD"] = self.method
        if self.uri != uri:
            environ["RAW_URI"] = environ["REQUEST_URI"] = self.uri
        if self.path != path:
            from urllib.parse import unquote_to_bytes

            environ["PATH_INFO"] = unquote_to_bytes(self.path.encode("latin-1")).decode("latin-1")
        if self.query != query:
            environ["QUERY_STRING"] = self.query
        if self.scheme != scheme:
            environ["wsgi.url_scheme"] = self.scheme

    def values(self):
        return self.method, self.uri, self.path, self.query, self.scheme


class Response:
    """The answer, by the attributes of gunicorn's."""

    def __init__(self, request, start_response):
        self.req = request
        self.status = None
        self.status_code = None
        self.headers = []
        self.headers_sent = False
        self.response_length = None
        self.sent = 0
        self._start = start_response
        self._write = None

    def start_response(self, status, headers, exc_info=None):
        write = self._start(status, headers, exc_info) if exc_info else self._start(status, headers)
        self.status = status
        self.status_code = int(status[:3])
        self.headers = list(headers)
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        self.response_length = int(lengths[0]) if lengths else None
        self._write = write
        return self.write

    def write(self, data):
        self._write(data)
        self.count(data)

    def count(self, data):
        # What is no bytes, the server refuses with the right words.
        if isinstance(data, bytes):
            self.add(len(data))

    def add(self, count):
        self.sent += count
        self.headers_sent = True

    def should_close(self):
        return self.req.should_close()


class Body:
    """An iterable of the application, with something to do when it is closed."""

    def __init__(self, iterable, count, then):
        self._iterable = iterable
        self._next = None
        self._count = count
        self._then = then

    def __iter__(self):
        self._next = iter(self._iterable).__next__
        return self

    def __next__(self):
        data = self._next()
        self._count(data)
        return data

    def close(self):
        try:
            close = getattr(self._iterable, "close", None)
            if close is not None:
                close()
        finally:
            then, self._then = self._then, None
            if then is not None:
                then()


def around(application, worker, pre, post, file_wrapper):
    """The application with pre_request before each request and post_request after its answer; one of the two may be None."""

    count = worker._count
    worker._begun = 0

    def finish(request, environ, response):
        try:
            post(worker, request, environ, response)
        except Exception:
            worker.log.exception("Exception in post_request hook")

    def call(environ, start_response):
        request = Request(environ)
        response = None
        try:
            if pre is not None:
                before = request.values()
                pre(worker, request)
                request.apply(before)
            worker._begun = next(count)
            if post is None:
                return application(environ, start_response)
            response = Response(request, start_response)
            body = application(environ, response.start_response)
        except BaseException:
            if post is not None:
                finish(request, environ, response)
            raise
        kind = type(body)
        if kind is file_wrapper:

            def then(sent):
                response.add(sent)
                finish(request, environ, response)

            body._at_close(then)
            return body
        if kind is list or kind is tuple:
            for data in body:
                response.count(data)
            finish(request, environ, response)
            return body
        if isinstance(body, (str, bytes, bytearray)) or not hasattr(body, "__iter__"):
            finish(request, environ, response)
            return body
        return Body(body, response.count, lambda: finish(request, environ, response))

    return call


class Hooks:
    """The hooks of one process."""

    def __init__(self, names, wanted, signature):
        self._functions = {
            name: resolved(name, names[name], signature) for name in wanted if names.get(name) is not None
        }
        self.names = names

    def equip(self, log, settings, pid, num_workers):
        """Makes the objects that the functions get."""
        self.server = Server(log, Config(settings, self.names), pid, num_workers)

    def call(self, name, *arguments):
        """Calls a hook that is defined; its exceptions are the caller's."""
        function = self._functions.get(name)
        if function is not None:
            function(*arguments)

    def attempt(self, name, *arguments):
        """Calls it, and logs what it raises."""
        try:
            self.call(name, *arguments)
        except SystemExit:
            # gunicorn's process would end here, which is about to happen anyway.
            pass
        except BaseException:
            self.server.log.exception("Exception in %s hook", name)

    # In a worker.

    def begin(self, age, requests):
        self.worker = Worker(self.server, os.getpid(), age)
        self.worker._requests = requests
        self.call("post_fork", self.server, self.worker)

    def loaded(self, application):
        """Returns the application to be served."""
        self.worker.wsgi = self.worker.app.callable = application
        self.call("post_worker_init", self.worker)
        self.worker.booted = True
        return self.worker.wsgi

    def around(self, application, file_wrapper):
        pre, post = self._functions.get("pre_request"), self._functions.get("post_request")
        if pre is None and post is None:
            return application
        return around(application, self.worker, pre, post, file_wrapper)

    def interrupted(self):
        self.worker.alive = False
        self.attempt("worker_int", self.worker)

    def aborted(self):
        self.worker.alive = False
        self.worker.aborted = True
        self.attempt("worker_abort", self.worker)

    def exit(self):
        self.worker.alive = False
        self.attempt("worker_exit", self.server, self.worker)

    # In the hook process.

    def starting(self):
        self.call("on_starting", self.server)

    def notice(self, name):
        self.attempt(name, self.server)

    def forked(self, pid, age):
        self.server.worker_age = age
        self.server.WORKERS[pid] = worker = Worker(self.server, pid, age)
        self.attempt("pre_fork", self.server, worker)

    def ended(self, pid, age):
        worker = self.server.WORKERS.pop(pid, None) or Worker(self.server, pid, age)
        worker.alive = False
        self.attempt("child_exit", self.server, worker)

    def changed(self, new, old):
        self.server.num_workers = new
        self.attempt("nworkers_changed", self.server, new, old)


def enter(directory):
    """Enters --chdir, where the application is, as gunicorn's master does once it has its settings."""
    directory = os.path.abspath(os.fspath(directory))
    os.chdir(directory)
    if directory not in sys.path:
        sys.path.insert(0, directory)


def load(load_file, path, module, start):
    """Executes the file as it was executed for its settings: in `start`, or in the working directory."""
    here, writes = os.getcwd(), sys.dont_write_bytecode
    try:
        if start is not None:
            start = os.fspath(start)
            sys.path.insert(0, start)
            os.chdir(start)
        return load_file(path, module, list(sys.argv))
    finally:
        sys.dont_write_bytecode = writes
        if start is not None:
            os.chdir(here)
            if start in sys.path:
                sys.path.remove(start)
