"""Asks tornadoapp through Tornado's own server, here, and through the server at this address, and compares."""

import asyncio
import http.client
import sys
import threading

import tornado.httpserver
import tornado.netutil

import tornadoapp

# Fields in which both must agree; the others are of the servers themselves.
FIELDS = ("content-type", "content-length", "etag", "location", "set-cookie", "cache-control", "vary", "allow",
          "content-encoding", "content-range", "accept-ranges", "last-modified", "expires")

FORM = (b"--cut\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nvalue\r\n--cut\r\nContent-Disposition: form-data; "
        b"name=\"file\"; filename=\"a.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n" + bytes(range(256)) * 400 +
        b"\r\n--cut--\r\n")

REQUESTS = [
    ("GET", "/", {}, None),
    ("HEAD", "/", {}, None),
    ("GET", "/hello/b%C3%A4r%2Fz?x=1&x=%20", {}, None),
    ("GET", "//hello//x", {}, None),
    ("GET", "/facts/a%2Fb%20c;d=1?q=%C3%A4&e", {"X-Field": "one", "Cookie": "a=1; b=2"}, None),
    ("GET", "/facts", {"Accept-Encoding": "gzip"}, None),
    ("GET", "/cookies", {}, None),
    ("GET", "/stream", {}, None),
    ("GET", "/stream?count=0", {}, None),
    ("GET", "/together", {}, None),
    ("POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=1&b=2"),
    ("POST", "/", {"Content-Type": "multipart/form-data; boundary=cut"}, FORM),
    ("POST", "/", {"Content-Type": "multipart/form-data; boundary=cut"}, b"broken"),
    ("PUT", "/upload", {}, b"x" * 1_000_000),
    ("PUT", "/upload", {}, b""),
    ("PUT", "/deny", {}, b"x" * 1000),
    ("DELETE", "/", {}, None),
    ("OPTIONS", "/", {}, None),
    ("GET", "/nowhere", {}, None),
    ("GET", "/fail/once", {}, None),
    ("GET", "/fail/http", {}, None),
    ("GET", "/fail/finish", {}, None),
    ("GET", "/behind", {}, None),
    ("GET", "/files/tornadoapp.py", {}, None),
    ("GET", "/files/tornadoapp.py?v=123", {}, None),
    ("HEAD", "/files/tornadoapp.py", {}, None),
    ("GET", "/files/tornadoapp.py", {"Range": "bytes=3-12"}, None),
    ("GET", "/files/tornadoapp.py", {"Range": "bytes=999999-"}, None),
    ("GET", "/files/../secret", {}, None),
    ("GET", "/files/missing", {}, None),
    ("GET", "/beside/x", {}, None),
    ("POST", "/beside/%C3%A4", {}, b"body"),
]


def ask(address, method, target, headers, body):
    # A connection for each: Tornado's own server closes some.
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    fields = sorted((name.lower(), value) for name, value in answer.getheaders() if name.lower() in FIELDS)
    found = answer.status, fields, answer.read()
    connection.close()
    return found


def serve(ready):
    async def main():
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server = tornado.httpserver.HTTPServer(tornadoapp.make())
        server.add_sockets(sockets)
        ready.append(sockets[0].getsockname()[1])
        event.set()
        await asyncio.Event().wait()

    event = ready.pop()
    asyncio.run(main())


event = threading.Event()
ready = [event]
threading.Thread(target=serve, args=(ready,), daemon=True).start()
assert event.wait(20)
theirs, ours = f"127.0.0.1:{ready[0]}", sys.argv[1].replace("http://", "")
different = 0
for request in REQUESTS:
    expected, found = ask(theirs, *request), ask(ours, *request)
    if expected != found:
        different += 1
        print(request[:3], expected[0], expected[1], expected[2][:300], found[0], found[1], found[2][:300], sep="\n  ")
print(len(REQUESTS), "requests", different, "different")
sys.exit(different != 0)
