"""The directories whose files are the application: those of its modules, and of its templates."""

import os
import sys

# The library of the interpreter, with its own packages.
LIBRARY = os.path.dirname(os.path.realpath(os.__file__)) + os.sep
# Packages that somebody has installed. They are not edited; a reload by hand loads others.
PACKAGES = {"site-packages", "dist-packages"}
# Where frameworks look for templates beside a module.
FOLDERS = ("templates", "views")
# Of all folders with templates, so many are named: each is watched.
FOLDERS_MAX = 200

told = set()
modules = 0
applications = ()


def is_own(path):
    return not path.startswith(LIBRARY) and PACKAGES.isdisjoint(path.split(os.sep))


def places(file):
    """The directory of the file, and that of the file which it is a link to."""
    found = set()
    for path in (file, os.path.realpath(file)):
        if is_own(path):
            found.add(os.path.dirname(path))
    return found


def code():
    found = set()
    for module in list(sys.modules.values()):
        try:
            # Not by getattr, which may be the module's own function and load others.
            names = object.__getattribute__(module, "__dict__")
        except AttributeError:
            continue
        file = names.get("__file__")
        if isinstance(file, str) and os.path.isabs(file) and is_own(file):
            found |= places(file)
        try:
            paths = [path for path in names.get("__path__") or () if isinstance(path, str)]
        except Exception:
            paths = []
        for path in paths:
            if os.path.isabs(path) and is_own(path):
                found |= {path, os.path.realpath(path)}
    return found


def template_roots(directories):
    roots = [os.path.join(directory, folder) for directory in directories for folder in FOLDERS]
    for application in applications:
        blueprints = getattr(application, "blueprints", None)
        for owner in (application, *(blueprints.values() if isinstance(blueprints, dict) else ())):
            roots += getattr(getattr(owner, "jinja_loader", None), "searchpath", ())
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if getattr(settings, "configured", False):
        for engine in settings.TEMPLATES:
            roots += engine.get("DIRS") or ()
    return [os.path.abspath(root) for root in roots]


def templates(directories):
    found = set()
    for root in template_roots(directories):
        if not is_own(root):
            continue
        for directory, folders, _ in os.walk(root):
            folders[:] = [folder for folder in folders if not folder.startswith(".") and folder != "node_modules"]
            found.add(os.path.realpath(directory))
            if len(found) >= FOLDERS_MAX:
                return found
    return found


def news():
    """Entries that were not returned before."""
    directories = code()
    try:
        shown = templates(directories)
    except Exception:
        # Settings of the application may be anything.
        shown = set()
    entries = {"c" + path for path in directories} | {"t" + path for path in shown}
    fresh = [entry for entry in sorted(entries - told) if "\0" not in entry and is_text(entry)]
    told.update(fresh)
    return fresh


def is_text(entry):
    try:
        entry.encode()
    except UnicodeEncodeError:
        # A path that is no UTF-8.
        return False
    return True


def loaded(apps):
    """After the applications were loaded."""
    global applications, modules
    applications = apps
    modules = len(sys.modules)
    return news()


def failed(text):
    """After it was not, with its traceback: a module that fails is not among those that are loaded."""
    entries = {"f"} | set(news())
    for line in text.splitlines():
        _, mark, rest = line.strip().partition('File "')
        path = rest.partition('"')[0]
        if mark and os.path.isabs(path) and is_own(path):
            entries |= {"c" + place for place in places(path)}
    # Where a module may be missing.
    for path in sys.path:
        path = os.path.abspath(path)
        if is_own(path) and os.path.isdir(path):
            entries.add("c" + path)
    return sorted(entry for entry in entries if is_text(entry))


def more():
    """Now and then: modules that were loaded since."""
    global modules
    if len(sys.modules) == modules:
        return []
    modules = len(sys.modules)
    return news()


def forget(entries):
    global modules
    told.difference_update(entries)
    modules = 0


def keep_byte_code_true():
    """Byte code names its source by the second and the size. A file that is saved again in the same second, with the same size,
    would not be read again; so the byte code of a file that was just saved is not kept."""
    import time
    from importlib.machinery import SourceFileLoader

    set_data = SourceFileLoader.set_data

    def set_data_later(self, path, data, **options):
        try:
            if time.time() - os.stat(self.path).st_mtime < 2:
                return
        except OSError:
            pass
        set_data(self, path, data, **options)

    SourceFileLoader.set_data = set_data_later
