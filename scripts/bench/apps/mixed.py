"""A quick page, and one that waits as for a database: fifty milliseconds without the GIL."""

import time


def application(environ, start_response):
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(0.05)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello World!\n"]
