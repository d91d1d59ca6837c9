import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys

# The name under which gunicorn knows its file.
MODULE = "__config__"


def load(path, module, argv):
    """The names that a gunicorn file sets with their values, as gunicorn itself gets them; one of the first two is None."""
    sys.argv[:] = argv
    # A directory that a package owns, or another user, is not for our files.
    sys.dont_write_bytecode = True
    if module is not None:
        return vars(importlib.import_module(module))
    loader = None
    if not path.endswith((".py", ".pyc")):
        loader = importlib.machinery.SourceFileLoader(MODULE, path)
    spec = importlib.util.spec_from_file_location(MODULE, path, loader=loader)
    made = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = made
    spec.loader.exec_module(made)
    return vars(made)


def lines(names):
    """The line of the last statement that sets each name, as far as the source says."""
    # A worker that calls hooks needs none of it.
    import ast

    found = {}
    try:
        with open(names["__file__"], "rb") as file:
            tree = ast.parse(file.read())
    except (KeyError, TypeError, OSError, SyntaxError, ValueError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            name = node.name
        else:
            continue
        found[name] = max(node.lineno, found.get(name, 0))
    return found


def named(value):
    """What a dict for logging.config may have besides data, by the names that it has there."""
    for stream in ("stdout", "stderr"):
        if value is getattr(sys, stream):
            return "ext://sys." + stream
    if isinstance(value, type):
        return value.__module__ + "." + value.__qualname__
    raise TypeError


def simple(value):
    """A value as (kind, simpler value), where the kinds are those of the JSON answer."""
    if value is None:
        return ("none", True)
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int):
        value = int(value)
        return ("integer", value) if -(2**63) <= value < 2**63 else ("other", repr(value))
    if isinstance(value, float):
        return ("float", value)
    if isinstance(value, str):
        return ("text", value.encode("utf-8", "replace").decode())
    if isinstance(value, os.PathLike):
        return simple(os.fspath(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return ("list", [simple(item) for item in value])
    if isinstance(value, dict):
        try:
            return ("json", json.dumps(value, default=named))
        except (TypeError, ValueError):
            return ("other", repr(value))
    if isinstance(value, type):
        return ("text", value.__module__ + "." + value.__qualname__)
    return ("other", repr(value))
