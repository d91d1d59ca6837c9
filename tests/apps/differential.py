"""What tests/differential.rs asks for: a request's target has its id and the steps to take, so that the client knows the answer.

`/0000002a/t5,s200,w100,G,b16384,t1,b0` sleeps 5 ms, calls start_response, writes 100 bytes, returns a generator of two blocks with a
pause between them. Each piece of a body says whose it is, which one, and where in it (`piece`). DIFFERENTIAL_MARKS names the file in
which each call (E) and each close() (C) is noted.
"""

import io
import os
import sys
import tempfile
import time
import zlib

MARKS = os.open(os.environ["DIFFERENTIAL_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
# Generators that are not closed yet: an object that loses its last reference is closed by Python itself.
OPEN = {}
# Bytes with one number, as units of 16 bytes.
GROUP = 1024


def piece(ident, number, size):
    """`size` bytes that tell the request, the piece, and the group of 1 KiB."""
    if size <= GROUP:
        return (b"%s%03x%04x." % (ident, number, 0) * (size // 16 + 1))[:size]
    groups = [b"%s%03x%04x." % (ident, number, group) * (GROUP // 16) for group in range(size // GROUP + 1)]
    return b"".join(groups)[:size]


class Failed(Exception):
    """Raised on purpose."""


class Call:
    def __init__(self, environ, start_response):
        ident, code = environ["PATH_INFO"][1:].split("/", 1)
        self.ident = ident.encode()
        self.steps = iter(code.split(","))
        self.environ = environ
        self.start_response = start_response
        self.fields = [("X-Id", ident)]
        self.number = 0
        self.upload = b""
        self.write = None
        self.last = None
        self.close_fails = False

    def mark(self, letter):
        os.write(MARKS, b"%s %s\n" % (letter, self.ident))

    def block(self, size):
        self.number += 1
        return piece(self.ident, self.number - 1, size)

    def run(self):
        """The steps up to the return."""
        self.mark(b"E")
        for step in self.steps:
            kind, rest = step[0], step[1:]
            if kind == "s":
                self.write = self.start_response(rest + " OK", self.fields)
            elif kind == "t":
                time.sleep(int(rest) / 1000)
            elif kind == "w":
                self.write(self.block(int(rest)))
            elif kind == "h":
                self.fields.append(("X-Big", piece(self.ident, 0xFFE, int(rest)).decode()))
            elif kind == "c":
                self.fields.append(("Content-Length", rest))
            elif kind == "x":
                self.fields.append(("Connection", "close"))
            elif kind == "i":
                self.environ["wsgi.early_hints"]([("X-Id", self.ident.decode())])
            elif kind == "r":
                self.upload = self.read(int(rest))
            elif kind == "q":
                self.last = int(rest)
            elif kind == "k":
                self.close_fails = True
            elif kind == "z":
                try:
                    raise Failed("caught")
                except Failed:
                    self.write = self.start_response(rest + " Again", self.fields, sys.exc_info())
            elif kind == "!":
                raise Failed("on purpose")
            else:
                return getattr(self, "form_" + kind)(rest)

    def read(self, size):
        source = self.environ["wsgi.input"]
        if size == 0:
            return source.read()
        if size == 1:
            return b"".join(source)
        blocks = []
        while block := source.read(size):
            blocks.append(block)
        return b"".join(blocks)

    def blocks(self):
        """The steps behind the return: each gives a block."""
        for step in self.steps:
            kind, rest = step[0], step[1:]
            if kind == "b":
                yield self.block(int(rest))
            elif kind == "w":
                self.write(self.block(int(rest)))
            elif kind == "e":
                yield self.upload
            elif kind == "u":
                yield b"%08x %08x;" % (len(self.upload), zlib.adler32(self.upload))
            elif kind == "t":
                time.sleep(int(rest) / 1000)
            elif kind == "!":
                raise Failed("on purpose")

    def form_L(self, _):
        return list(self.blocks())

    def form_T(self, _):
        return tuple(self.blocks())

    def form_G(self, _):
        OPEN[self.ident] = generator = self.generate()
        return generator

    def generate(self):
        try:
            yield from self.blocks()
        finally:
            del OPEN[self.ident]
            self.mark(b"C")

    def form_I(self, _):
        return Iterable(self)

    def form_F(self, offset):
        """A file from `offset` on."""
        file = tempfile.TemporaryFile()
        file.write(b"-" * int(offset))
        for block in self.blocks():
            file.write(block)
        file.flush()
        file.seek(int(offset))
        return self.environ["wsgi.file_wrapper"](file)

    def form_B(self, size):
        """What looks like a file and is none."""
        return self.environ["wsgi.file_wrapper"](Memory(self, b"".join(self.blocks())), int(size))

    def close(self):
        self.mark(b"C")
        if self.last is not None:
            self.write(self.block(self.last))
        if self.close_fails:
            raise Failed("in close()")


class Iterable:
    def __init__(self, call):
        self.call = call
        self.source = call.blocks()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.source)

    def close(self):
        self.call.close()


class Memory:
    def __init__(self, call, content):
        self.call = call
        self.read = io.BytesIO(content).read

    def close(self):
        self.call.close()


def application(environ, start_response):
    return Call(environ, start_response).run()
