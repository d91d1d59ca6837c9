"""Files by which a test application and its test tell each other how far they are."""

import os
import time

# A gate that nobody opens ends the wait, so that a failed test leaves no hanging worker. In seconds.
GATE_LIMIT = 20


class Notes:
    """The files of one directory, which the environment names."""

    def __init__(self, variable):
        self.directory = os.environ.get(variable, ".")

    def path(self, name):
        return os.path.join(self.directory, name)

    def is_open(self, name):
        """Whether the test has made this gate's file."""
        return os.path.exists(self.path(name))

    def await_gate(self, name):
        deadline = time.monotonic() + GATE_LIMIT
        while not self.is_open(name):
            if time.monotonic() > deadline:
                raise TimeoutError("nobody opened " + name)
            time.sleep(0.002)

    def note(self, name, line):
        with open(self.path(name), "a") as file:
            file.write(line + "\n")
