"""Uses the Django project as a browser would. Arguments: base URL, directory of the project's files."""

import hashlib
import os
import re
import sys
from pathlib import Path

import requests

BASE, DIR = sys.argv[1], Path(sys.argv[2])
UPLOAD_SIZE = 20 * 1024 * 1024
DOWNLOAD = bytes(range(256)) * 4096


def check(condition, *what):
    if not condition:
        raise AssertionError(what)


def token(page):
    return re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]


def admin(session):
    page = session.get(BASE + "/admin/")
    check(page.status_code == 200 and "/admin/login/" in page.url, page.url)
    wrong = session.post(page.url, {"username": "admin", "password": "secret", "csrfmiddlewaretoken": "x" * 64})
    check(wrong.status_code == 403, wrong.status_code)
    fields = {"username": "admin", "password": "secret", "next": "/admin/", "csrfmiddlewaretoken": token(page)}
    page = session.post(page.url, fields, headers={"Referer": page.url})
    check(page.status_code == 200 and "Site administration" in page.text, page.status_code, page.text[:300])
    check("sessionid" in session.cookies, session.cookies)

    page = session.get(BASE + "/admin/auth/group/add/")
    check(page.status_code == 200, page.status_code)
    fields = {"name": f"group of {os.getpid()} caf\u00e9", "csrfmiddlewaretoken": token(page), "_save": "Save"}
    page = session.post(page.url, fields, headers={"Referer": page.url})
    check("was added successfully" in page.text, page.text[:300])
    check(fields["name"] in session.get(BASE + "/admin/auth/group/").text)

    page = session.post(BASE + "/admin/logout/", {"csrfmiddlewaretoken": session.cookies["csrftoken"]})
    check(page.status_code == 200 and "sessionid" not in session.cookies, page.status_code)


def upload(session):
    data = os.urandom(1024) * (UPLOAD_SIZE // 1024)
    sha256 = hashlib.sha256(data).hexdigest()
    csrf = session.get(BASE + "/upload/").json()["token"]
    answer = session.post(BASE + "/upload/", {"title": "caf\u00e9", "csrfmiddlewaretoken": csrf}, files={"file": ("a.bin", data)})
    check(answer.json() == {"length": UPLOAD_SIZE, "sha256": sha256, "title": "caf\u00e9"}, answer.text)
    check((DIR / "media/a.bin").read_bytes() == data)

    blocks = (data[start : start + 100_000] for start in range(0, UPLOAD_SIZE, 100_000))
    answer = session.post(BASE + "/raw/", data=blocks)
    check(answer.json() == {"length": UPLOAD_SIZE, "sha256": sha256}, answer.text)


def streams(session):
    answer = session.get(BASE + "/stream/")
    check(answer.text == "".join(f"row {number}\n" for number in range(10_000)))
    with session.get(BASE + "/stream/", stream=True) as answer:
        lines = list(answer.iter_lines())
    check(len(lines) == 10_000, len(lines))


def downloads(session):
    answer = session.get(BASE + "/download/")
    check(answer.content == DOWNLOAD)
    check(answer.headers["Content-Length"] == str(len(DOWNLOAD)), answer.headers)
    check(answer.headers["Content-Disposition"] == 'attachment; filename="download.bin"', answer.headers)
    head = session.head(BASE + "/download/")
    check(head.headers["Content-Length"] == str(len(DOWNLOAD)) and not head.content, head.headers)
    for first, last in ((0, 0), (100, 70_000), (len(DOWNLOAD) - 5, len(DOWNLOAD) - 1)):
        answer = session.get(BASE + "/range/", headers={"Range": f"bytes={first}-{last}"})
        check(answer.status_code == 206 and answer.content == DOWNLOAD[first : last + 1], first, last, answer.headers)
    answer = session.get(BASE + "/range/", headers={"Range": "bytes=1000000-"})
    check(answer.content == DOWNLOAD[1_000_000:], answer.headers)
    check(session.get(BASE + "/range/", headers={"Range": "bytes=99999999-"}).status_code == 416)


def errors(session):
    check(session.get(BASE + "/missing/").status_code == 404)
    check(session.get(BASE + "/fail/").status_code == 500)
    check(session.get(BASE + "/").text == "Hello from Django")


with requests.Session() as session:
    # Over TLS Django asks each form where it comes from, and browsers say so.
    session.headers["Referer"] = BASE + "/"
    for step in (admin, upload, streams, downloads, errors):
        step(session)
