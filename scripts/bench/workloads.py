"""What the servers are asked: how each workload is probed for right answers, driven and read."""

import json
import re
import resource
import select
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import common

# Connections of a client that keeps the server busy.
CONNECTIONS = 25
# Seconds for one answer; and beyond the length of a run, until its client must have ended.
PATIENCE = 20
# Seconds for the answers to pipelined requests: some servers never give the second.
PIPELINE_PATIENCE = 3

BODY_SIZES = {"/": 13, "/block": 64 * 1024, "/file": 10 * 1024 * 1024, "/stream": 1000 * 256}
UPLOAD = 1024 * 1024
DEPTH = 16
SHORT = 10
QUICK_CLIENTS, SLOW_CLIENTS = 16, 4


@dataclass(frozen=True)
class Scale:
    """How much is asked."""

    # Requests of an ab run, which ends after so many seconds in any case: short, so that the rounds follow each other quickly and
    # what disturbs the machine meets all servers alike.
    requests: int = 100_000
    longest: int = 2
    # Length of a wrk run in seconds.
    seconds: int = 1
    idle: int = 5000


QUICK = Scale(requests=20_000, longest=1, seconds=1, idle=1000)
# Before a server is measured for the first time.
WARM_UP = Scale(requests=1000, longest=1)


@dataclass
class Run:
    """One measurement."""

    done: int = 0
    rate: float = 0
    # Milliseconds.
    p50: float = 0
    p99: float = 0
    errors: int = 0
    # What went wrong beyond counted errors.
    problem: str = ""
    # Filled in by the caller: microseconds per request, bytes, number of the round.
    cpu: float = 0
    memory: int = 0
    round: int = 0


def execute(command, cores, limit):
    """Runs a client on its cores; its output, or a RuntimeError that says what became of it."""
    return execute_all([command], cores, limit)[0]


def execute_all(commands, cores, limit):
    """Runs clients beside each other."""
    pin = ["taskset", "-c", ",".join(str(core) for core in sorted(cores))]
    clients = [subprocess.Popen([*pin, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
    deadline = time.monotonic() + limit
    outputs = []
    try:
        for client, command in zip(clients, commands):
            said, complaint = client.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if client.returncode != 0:
                lines = (complaint.strip() or said.strip() or "it failed").splitlines()
                raise RuntimeError(lines[-1][:120])
            outputs.append(said)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0].rpartition('/')[2]} did not end within {limit} s") from None
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    return outputs


def ab(*options, clients=1):
    """So many ab processes, each with its part of the requests: one alone is busy with 20,000 requests a second."""

    def drive(port, scale, cores):
        count = ["-t", str(scale.longest), "-n", str(scale.requests // clients), "-c", str(CONNECTIONS)]
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            tables = [Path(directory, str(number)) for number in range(clients)]
            shared = [common.tool("ab"), "-q", "-r", *count, *options]
            commands = [[*shared, "-e", str(table), f"http://127.0.0.1:{port}/"] for table in tables]
            runs = [read_ab(*pair) for pair in zip(execute_all(commands, cores, scale.longest + PATIENCE), tables)]
        run = runs[0]
        for other in runs[1:]:
            run.done, run.rate, run.errors = run.done + other.done, run.rate + other.rate, run.errors + other.errors
            run.p50, run.p99 = max(run.p50, other.p50), max(run.p99, other.p99)
        return run

    return drive


def read_ab(report, table):
    # A line for each percentage, in milliseconds; what ab prints itself is rounded to whole ones.
    times = dict(line.strip().split(",") for line in table.read_text().splitlines()) if table.exists() else {}

    def figure(label):
        match = re.search(rf"^\s*{re.escape(label)}\s+([\d.]+)", report, re.MULTILINE)
        return float(match[1]) if match else 0

    errors = sum(figure(label) for label in ("Failed requests:", "Non-2xx responses:", "Write errors:"))
    return Run(int(figure("Complete requests:")), figure("Requests per second:"), float(times.get("50", 0)), float(times.get("99", 0)), int(errors))


def wrk_command(port, scale, path="/", mode="plain", number=1, headers=(), connections=CONNECTIONS, threads=2):
    options = [word for header in headers for word in ("-H", header)]
    shape = [f"-t{threads}", f"-c{connections}", f"-d{scale.seconds}s", "--timeout", f"{PATIENCE}s"]
    command = [common.tool("wrk"), *shape, *options, "-s", str(common.BENCH / "wrk.lua")]
    return [*command, f"http://127.0.0.1:{port}{path}", "--", mode, str(number)]


def read_wrk(output):
    summary = json.loads(output.splitlines()[-1])
    done = summary["requests"]
    run = Run(done, done / summary["micros"] * 1e6, summary["p50"] / 1000, summary["p99"] / 1000)
    run.errors = sum(summary[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    return run, summary


def beside_sleepers(port, scale, cores):
    """Clients of a quick page beside clients of a slow one. Time and rate are those of the quick one, `done` counts both."""
    quick = wrk_command(port, scale, connections=QUICK_CLIENTS, threads=1)
    slow = wrk_command(port, scale, "/sleep", connections=SLOW_CLIENTS, threads=1)
    (run, _), (sleepers, _) = map(read_wrk, execute_all([quick, slow], cores, scale.seconds + PATIENCE * 2))
    run.done, run.errors = run.done + sleepers.done, run.errors + sleepers.errors
    if not sleepers.done:
        run.problem = "the slow requests have no answer"
    return run


def wrk(path="/", **shape):
    def drive(port, scale, cores):
        output = execute(wrk_command(port, scale, path, **shape), cores, scale.seconds + PATIENCE * 2)
        run, summary = read_wrk(output)
        done = run.done
        if summary["read"] and path == "/stream" and ends_by_close(port, path):
            # wrk takes the end of the connection for an error even when it is the end of the body (RFC 9112 section 6.3).
            run.errors -= min(summary["read"], done)
        if summary["bytes"] < done * BODY_SIZES.get(path, 0):
            run.problem = "answers are cut"
        return run

    return drive


def beside_idle(port, scale, cores):
    """wrk while many connections stay idle that have had an answer; all must still be there in the end."""
    clients = []
    deadline = time.monotonic() + PATIENCE
    try:
        for _ in range(scale.idle):
            if time.monotonic() > deadline:
                raise RuntimeError(f"serves only {len(clients):,} connections that stay open in {PATIENCE} s")
            client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            clients.append(client)
            client.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            if not read_answer(client).endswith(b"Hello World!\n"):
                raise RuntimeError(f"wrong answer on idle connection {len(clients)}")
        run = wrk()(port, scale, cores)
        poll = select.poll()
        for client in clients:
            poll.register(client, select.POLLIN)
        closed = len(poll.poll(0))
        if closed:
            run.problem = f"closed {closed:,} of {scale.idle:,} idle connections"
        return run
    except OSError as error:
        raise RuntimeError(f"idle connection {len(clients):,}: {error}") from None
    finally:
        for client in clients:
            client.close()


def read_answer(client):
    """One answer with a Content-Length, or up to the end of the connection."""
    data = b""
    while True:
        head, blank, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if blank and length and len(body) >= int(length[1]):
            return data
        block = client.recv(65536)
        if not block:
            return data
        data += block


def probe(port, path, request=None):
    """The answer to one request on a connection of its own."""
    request = request or f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(request)
        data = b""
        while block := client.recv(1 << 20):
            data += block
        return data


def ends_by_close(port, path):
    """Whether an answer has neither a length nor chunks."""
    head = probe(port, path).partition(b"\r\n\r\n")[0].lower()
    return b"\r\ncontent-length:" not in head and b"chunked" not in head


def right_size(path):
    def check(port):
        data = probe(port, path)
        head, _, body = data.partition(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            return f"answers {head[:40]!r}"
        if b"chunked" not in head.lower() and len(body) != BODY_SIZES.get(path, len(body)):
            return f"sends {len(body):,} of {BODY_SIZES[path]:,} bytes"
        return "" if len(body) >= BODY_SIZES.get(path, 1) else f"sends {len(body):,} bytes"

    return check


def right_upload(port):
    head = f"POST /upload HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {UPLOAD}\r\n\r\n"
    data = probe(port, "", head.encode() + b"x" * UPLOAD)
    return "" if str(UPLOAD).encode() in data.partition(b"\r\n\r\n")[2] else f"answers {data[:60]!r}"


def right_pipeline(port):
    one = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    answers = 0
    with socket.create_connection(("127.0.0.1", port), timeout=PIPELINE_PATIENCE) as client:
        client.sendall(one * DEPTH)
        data = b""
        try:
            while answers < DEPTH and (block := client.recv(65536)):
                data += block
                answers = data.count(b"Hello World!\n")
        except TimeoutError:
            pass
    return "" if answers == DEPTH else f"answers {answers} of {DEPTH} pipelined requests"


@dataclass(frozen=True)
class Workload:
    """One row of the comparison."""

    title: str
    drive: Callable
    # Module of the application; servers of the same module and number of threads stay up from workload to workload.
    app: str = "hello"
    check: Callable = field(default=right_size("/"))
    threads: int | None = None


WORKLOADS = {
    "ab": Workload("`ab -n 100000 -c 25`, a connection per request", ab()),
    "ab-k": Workload("`ab -k -n 100000 -c 25`", ab("-k")),
    "wrk": Workload("keep-alive, 1 header", wrk()),
    "browser": Workload(f"keep-alive, {len(common.BROWSER)} browser headers", wrk(headers=common.BROWSER)),
    "short": Workload(f"connections of {SHORT} requests", wrk(mode="short", number=SHORT)),
    "pipeline": Workload(f"{DEPTH} pipelined requests", wrk(mode="pipeline", number=DEPTH), check=right_pipeline),
    "idle": Workload("keep-alive beside 5,000 idle connections", beside_idle),
    "block": Workload("body of 64 KiB", wrk("/block"), "bodies", right_size("/block")),
    "json": Workload("JSON of 10 KiB", wrk("/json"), "bodies", right_size("/json")),
    "stream": Workload("1,000 blocks of an iterable", wrk("/stream"), "bodies", right_size("/stream")),
    "upload": Workload("upload of 1 MiB", wrk("/upload", mode="upload", number=UPLOAD), "bodies", right_upload),
    "file": Workload("file of 10 MiB", wrk("/file", connections=8), "bodies", right_size("/file")),
    "flask": Workload("Flask, hello", wrk(), "flask_hello"),
    "django": Workload("Django, hello", wrk(), "django_hello"),
    "sleeper": Workload("10 ms of waiting, 16 threads", wrk(connections=32), "sleeper", threads=16),
    "mixed": Workload("16 clients of hello beside 4 that wait 50 ms, 8 threads", beside_sleepers, "mixed", threads=8),
    "ab-2": Workload("two `ab` processes, `-n 50000 -c 25` each", ab(clients=2)),
    "wrk-64": Workload("keep-alive, 64 connections", wrk(connections=64)),
}
# What a server with one worker is asked, and what is asked when some have more.
ONE = [key for key in WORKLOADS if key not in ("ab-2", "wrk-64")]
FOUR = ["ab-2", "wrk-64"]


def allow_descriptors(count):
    """Raises the limit of open files, which the servers inherit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise RuntimeError(f"{count} descriptors are needed, the limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else hard, hard))
