"""Serves the hello application by bjoern on 127.0.0.1 and the port given as argument."""

import os
import sys

import bjoern

# A script's own directory comes first on sys.path, not the working directory.
sys.path.insert(0, os.getcwd())

from hello import application  # noqa: E402

bjoern.run(application, "127.0.0.1", int(sys.argv[1]))
