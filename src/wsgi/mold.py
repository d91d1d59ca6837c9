"""What an application that was loaded once gets ready for the workers, which are forks of its process."""

import gc
import os
import sys


def settle():
    """Called when nothing more is loaded. Returns the names of the application's threads."""
    # Objects that a collection does not look at keep their pages shared: it would write into each of them.
    gc.collect()
    gc.freeze()
    return threads()


def threads():
    """Names of all threads but the calling one; those that are not Python's are counted."""
    threading = sys.modules["threading"]
    current = threading.current_thread()
    names = [thread.name for thread in threading.enumerate() if thread is not current]
    try:
        others = len(os.listdir("/proc/self/task")) - 1 - len(names)
    except OSError:
        others = 0
    if others > 0:
        names.append("%d of libraries in C" % others)
    return names
