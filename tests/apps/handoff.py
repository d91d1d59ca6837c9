"""Sleeps for `ms`, waits for a gate, answers with its process id and what it was sent. HANDOFF_DIR holds gates and notes."""

import os
import time
from urllib.parse import parse_qs

from notes import Notes

NOTES = Notes("HANDOFF_DIR")


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    if "ms" in query:
        time.sleep(float(query["ms"]) / 1000)
    if "gate" in query:
        NOTES.note(f"inside-{os.getpid()}", "waiting")
        NOTES.await_gate(query["gate"])
    if "die" in query:
        os._exit(9)
    body = environ["wsgi.input"].read() + b"|" + environ["PATH_INFO"].encode()
    ends = [environ[name] for name in ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT")]
    tls = [environ.get(name, "-") for name in ("SSL_PROTOCOL", "SSL_CIPHER", "SSL_CLIENT_VERIFY", "SSL_CLIENT_S_DN")]
    headers = [("X-Worker", str(os.getpid())), ("X-Names", " ".join(ends)), ("X-TLS", " ".join(tls))]
    headers.append(("Content-Length", str(len(body))))
    start_response("200 OK", headers)
    return [body]
