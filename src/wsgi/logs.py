"""The loggers by which applications reach the server's error log, and the configuration of logging."""

import sys

# gunicorn's, whose handlers applications take for their own loggers, and the server's.
LOGGERS = ("gunicorn.error", "gunicorn.access", "tapster")

# What a dict for logging.config has besides its own keys, as under gunicorn.
DEFAULTS = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout"},
        "error_console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stderr"},
    },
    "formatters": {
        "generic": {
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
            "class": "logging.Formatter",
        }
    },
}


class Finder:
    """Finds nothing but the first import of `logging`, which many applications never need."""

    def __init__(self, then):
        self.then = then

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = Loader(spec.loader, self.then)
                return spec
        return None


class Loader:
    """The module's own loader, and something after it."""

    def __init__(self, loader, then):
        self.loader = loader
        self.then = then

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.then(module)


# Writes a record: write(level, text).
write = None


def renew(function):
    """Has another function write the records from now on."""
    global write
    write = function


def install(function, level):
    """Gives the loggers a handler that calls function(level, text), as soon as there is `logging`."""
    renew(function)

    def attach(logging):
        if not hasattr(logging, "Handler") or not hasattr(logging, "getLogger"):
            # A module of the application's, which has this name.
            return

        class Handler(logging.Handler):
            def emit(self, record):
                try:
                    write(record.levelno, self.format(record))
                except Exception:
                    self.handleError(record)

        handler = Handler()
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            logger.setLevel(level)
            logger.propagate = False

    if "logging" in sys.modules:
        attach(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, Finder(attach))


def configure(path, text):
    """Sets up logging by the file, or by the JSON text where there is no file."""
    import logging.config

    if path is not None:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    if not text.lstrip().startswith("{"):
        import os

        path = os.path.abspath(path)
        defaults = {"__file__": path, "here": os.path.dirname(path)}
        logging.config.fileConfig(path, defaults=defaults, disable_existing_loggers=False)
        return
    import json

    logging.config.dictConfig({**DEFAULTS, **json.loads(text)})
