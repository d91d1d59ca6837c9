"""The servers that are compared: how the documentation of each starts it, and one that runs."""

import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import common

# Seconds. Reaching one of them is an error: nothing here waits for ever.
START_LIMIT = 60
STOP_LIMIT = 10
BUILD_LIMIT = 1200

# Seconds that an idle connection is kept, for servers that have an option for it: longer than any workload leaves one idle.
KEEP_ALIVE = 300

# Threads of a server that answers nothing without some, or is recommended to have more than one.
FEW_THREADS = 4


@dataclass(frozen=True)
class Job:
    """What a server is to serve."""

    port: int
    # Module below `directory`; its callable is `application`.
    app: str
    workers: int = 1
    # None: as many as the documentation recommends.
    threads: int | None = None
    access_log: str | None = None
    # One more address, with a gateway protocol before it.
    gateway: str | None = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Kind:
    """One server, in one configuration."""

    command: Callable[[Job], list]
    package: str | None = None
    # Whether it can have several worker processes, and several application threads.
    workers: bool = True
    threads: bool = True
    stop: signal.Signals = signal.SIGTERM
    # How it is started, for the report.
    note: str = ""


def venv(*words):
    program, *rest = (str(word) for word in words)
    return [str(common.VENV / "bin" / program), *rest]


def script(name):
    """Servers that are started by a Python program."""
    return lambda job: venv("python", common.BENCH / "serve.py", name, job.app, job.port, job.workers, job.threads or 0)


def tapster(job, program=None):
    command = [str(program or binary()), "--bind", job.address, "--workers", str(job.workers), "--keep-alive", str(KEEP_ALIVE)]
    command += ["--log-level", "warning"]
    if job.threads:
        command += ["--threads", str(job.threads)]
    if job.access_log:
        command += ["--access-logfile", job.access_log]
    if job.gateway:
        command += ["--bind", job.gateway]
    return [*command, job.app]


def gunicorn(*options):
    def command(job):
        log = ["--access-logfile", job.access_log] if job.access_log else []
        # Of the connections beyond its thousandth it closes those that are idle.
        threads = ["--threads", str(job.threads or FEW_THREADS), "--worker-connections", "6000"] if "gthread" in options else []
        shared = ["--bind", job.address, "--workers", str(job.workers), "--keep-alive", str(KEEP_ALIVE), "--no-control-socket"]
        return venv("gunicorn", *shared, *options, *threads, *log, f"{job.app}:application")

    return command


def granian(job):
    threads = ["--blocking-threads", str(job.threads)] if job.threads else []
    where = ["--host", "127.0.0.1", "--port", str(job.port), "--workers", str(job.workers)]
    return venv("granian", "--interface", "wsgi", *where, *threads, "--log-level", "warning", "--no-ws", f"{job.app}:application")


def uwsgi(job):
    threads = ["--threads", str(job.threads)] if job.threads else []
    options = ["--master", "--die-on-term", "--need-app", "--disable-logging", "--processes", str(job.workers), *threads]
    # It closes behind each answer without saying so, which clients of keep-alive count as an error.
    options += ["--add-header", "Connection: close"]
    return venv("uwsgi", "--http-socket", job.address, *options, "--listen", "100", "--module", f"{job.app}:application")


def waitress(job):
    if job.workers > 1:
        return script("waitress")(job)
    threads = ["--threads", str(job.threads)] if job.threads else []
    # Without them it refuses the connections beyond the hundredth, closes idle ones after two minutes, and fails beyond 1,024.
    limits = ["--connection-limit", "6000", "--channel-timeout", str(KEEP_ALIVE), "--asyncore-use-poll"]
    return venv("waitress-serve", "--host", "127.0.0.1", "--port", job.port, *threads, *limits, f"{job.app}:application")


KINDS = {
    "tapster": Kind(tapster),
    "before": Kind(lambda job: tapster(job, _before), note="Tapster before a change (`--before`)"),
    "fastpysgi": Kind(script("fastpysgi"), "fastpysgi", threads=False, stop=signal.SIGINT, note="`fastpysgi.run`"),
    "bjoern": Kind(script("bjoern"), "bjoern", threads=False, stop=signal.SIGINT, note="`bjoern.run`; workers forked behind `bjoern.listen`"),
    "granian": Kind(granian, "granian", note="`granian --interface wsgi`"),
    "uwsgi": Kind(uwsgi, "uwsgi", note="`uwsgi --http-socket --master`, without a log of requests, `Connection: close` added"),
    "gunicorn": Kind(gunicorn(), "gunicorn", threads=False, note="sync workers"),
    "gunicorn-gthread": Kind(gunicorn("--worker-class", "gthread"), "gunicorn", note=f"`--threads {FEW_THREADS}`, its connection limit raised to 6,000"),
    "waitress": Kind(waitress, "waitress", note="`waitress-serve`, 4 threads, with poll and its connection limit raised to 6,000; workers forked behind `listen`"),
    "cheroot": Kind(script("cheroot"), "cheroot", note="`cheroot.wsgi.Server`, 10 threads, its limit of kept connections raised to 6,000; workers with `reuse_port`"),
    "tornado": Kind(script("tornado"), "tornado", threads=False, note="`WSGIContainer(app)`"),
    "tornado-executor": Kind(script("tornado-executor"), "tornado", note=f"`WSGIContainer(app, executor)`, {FEW_THREADS} threads"),
    "native": Kind(lambda job: [str(example("native")), job.address], workers=False, threads=False, note="Tapster's loop without Python"),
    "epoll": Kind(lambda job: [str(example("epoll")), job.address], workers=False, threads=False, note="an epoll loop with a constant answer"),
}

# They have Tapster's options.
TAPSTERS = ("tapster", "before")
# What is no server, and where it is built: without Python, unlike the server beside it.
YARDSTICKS = ("native", "epoll")
YARDSTICKS_TARGET = common.ROOT / "target/yardsticks"

_binary = common.ROOT / "target/release/tapster"
_before = None


def binary():
    return _binary


def example(name):
    return YARDSTICKS_TARGET / "release/examples" / name


def build_yardsticks(names):
    """Builds them if one is among these; they need no Python, and must not be linked with it."""
    if set(names) & set(YARDSTICKS):
        command = ["cargo", "build", "--release", "--examples", "--no-default-features", "--locked", "--quiet"]
        subprocess.run([*command, "--target-dir", str(YARDSTICKS_TARGET)], cwd=common.ROOT, check=True, timeout=BUILD_LIMIT)


def has_threads():
    """Whether Tapster has --threads."""
    return "--threads" in subprocess.run([str(_binary), "--help"], capture_output=True, text=True, timeout=START_LIMIT).stdout


def set_binary(path, before=None):
    global _binary, _before
    _binary, _before = path.absolute(), before and before.absolute()
    if not _binary.exists():
        common.fail(f"{_binary} is missing: run `cargo build --release` first, or give --tapster PATH")
    if _before and not _before.exists():
        common.fail(f"{_before} is missing: --before names a binary of an earlier state")


class Server:
    """A server that runs, as a process group of its own; ends with its `with` block."""

    def __init__(self, name, app="hello", directory=None, workers=1, threads=None, cores=None, prefix=(), access_log=None, packages=False, env=None, gateway=None):
        self.name, self.kind, self.asked = name, KINDS[name], False
        self.port = common.free_port()
        self.gateway_port = common.free_port() if gateway else None
        self.log = tempfile.NamedTemporaryFile(prefix=f"bench-{name}-", suffix=".log")
        command = [*prefix, *self.kind.command(Job(self.port, app, workers, threads, access_log, gateway and f"{gateway}:127.0.0.1:{self.gateway_port}"))]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TAPSTER_")}
        environment.update(PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1")
        if packages:
            # Tapster finds the frameworks by it; the peers live there anyhow.
            environment["VIRTUAL_ENV"] = str(common.VENV)
        environment.update(env or {}, PYTHONPATH=str(directory or common.ROOT / "tests/apps"))
        # Tapster says when it is ready; the others have to be asked.
        self.ready, ready = os.pipe() if name in TAPSTERS else (None, None)
        if name in TAPSTERS:
            command[-1:-1] = ["--ready-fd", str(ready)]
        self.process = subprocess.Popen(
            command,
            cwd=environment["PYTHONPATH"].partition(os.pathsep)[0],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            pass_fds=[ready] if ready else [],
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )
        if ready:
            os.close(ready)

    def __enter__(self):
        try:
            self.await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def await_ready(self):
        if self.ready is not None:
            select.select([self.ready], [], [], START_LIMIT)
            os.set_blocking(self.ready, False)
            try:
                said = os.read(self.ready, 5)
            except BlockingIOError:
                said = b""
            os.close(self.ready)
            self.ready = None
            if said != b"READY":
                raise RuntimeError(f"{self.name} does not start: {self.tail()}")
        deadline = time.monotonic() + START_LIMIT
        while not self.answers():
            if not self.alive() or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start: {self.tail()}")
            time.sleep(0.01)

    def answers(self):
        """Whether it answers a plain request."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                client.settimeout(START_LIMIT)
                client.sendall(f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
                return client.recv(100).startswith(b"HTTP/1.")
        except OSError:
            return False

    def alive(self):
        return self.process.poll() is None

    def tail(self):
        """The end of what it wrote."""
        return Path(self.log.name).read_text(errors="replace")[-2000:]

    def last_line(self):
        """The last line that it wrote."""
        return (self.tail().strip().splitlines() or ["without a word"])[-1][:120]

    def ask_to_stop(self):
        """Once: some take a second signal for impatience."""
        if self.alive() and not self.asked:
            self.process.send_signal(self.kind.stop)
        self.asked = True

    def stop(self):
        if self.ready is not None:
            os.close(self.ready)
            self.ready = None
        self.ask_to_stop()
        if self.alive():
            try:
                self.process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(STOP_LIMIT)
        self.log.close()
