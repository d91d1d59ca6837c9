"""Uses the Flask application through requests. Argument: base URL."""

import hashlib
import io
import os
import sys

import requests

BASE = sys.argv[1]
SIZE = 3 * 1024 * 1024 + 11


def check(condition, *what):
    if not condition:
        raise AssertionError(what)


def forms(session):
    check(session.get(BASE + "/form").text == "name is unknown")
    answer = session.post(BASE + "/form", {"name": "caf\u00e9 & co"})
    check(answer.text == "name is caf\u00e9 &amp; co" or answer.text == "name is caf\u00e9 & co", answer.text)
    check([r.status_code for r in answer.history] == [302], answer.history)
    check(session.post(BASE + "/json", json={"a": [1, "\u00e9"]}).json() == {"a": [1, "\u00e9"]})


def cookies(session):
    session.get(BASE + "/cookies")
    check(session.cookies["first"] == "1", session.cookies)
    seen = session.get(BASE + "/cookies").json()
    check(seen["first"] == "1" and "second" in seen, seen)


def streams(session):
    answer = session.get(BASE + "/stream", params={"prefix": "line"})
    check(answer.text == "".join(f"line {number}\n" for number in range(1000)))
    check(answer.headers.get("Transfer-Encoding") == "chunked", answer.headers)


def uploads(session):
    data = os.urandom(SIZE)
    wanted = {"length": SIZE, "sha256": hashlib.sha256(data).hexdigest()}

    def sent(answer):
        found = answer.json()
        return {name: found[name] for name in wanted}

    check(sent(session.post(BASE + "/upload", data=data)) == wanted)
    check(sent(session.post(BASE + "/upload", data=io.BytesIO(data))) == wanted)
    check(sent(session.post(BASE + "/upload", files={"file": ("name", data)})) == wanted)
    # A generator has no length: requests sends it chunked.
    answer = session.put(BASE + "/upload", data=(data[start : start + 10_000] for start in range(0, SIZE, 10_000)))
    check(sent(answer) == wanted, answer.text)
    check(answer.json()["declared"] == SIZE, "the length of a chunked body is known", answer.text)
    check(sent(session.post(BASE + "/upload", data=iter([]))) == {"length": 0, "sha256": hashlib.sha256().hexdigest()})


def urls(session):
    seen = session.get(BASE + "/url/a%2Fb/caf\u00e9 x?q=%C3%A9#frag").json()
    check(seen["rest"] == "a/b/caf\u00e9 x", seen)
    check(seen["remote"] == "127.0.0.1", seen)


def errors(session):
    check(session.get(BASE + "/missing").status_code == 404)
    check(session.delete(BASE + "/form").status_code == 405)
    check(session.get(BASE + "/").text == "Hello from Flask")


with requests.Session() as session:
    for step in (forms, cookies, streams, uploads, urls, errors):
        step(session)
