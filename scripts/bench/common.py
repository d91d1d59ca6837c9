"""What `run` and `budget` share: the peers' virtual environment, starting and stopping servers, reading /proc."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = Path(__file__).resolve().parent
APPS = ROOT / "tests/apps"
VENV = ROOT / "target/bench-venv"

# Seconds. Reaching one of them ends the run with an error: nothing here waits for ever.
START_LIMIT = 60
STOP_LIMIT = 30
INSTALL_LIMIT = 600

# Besides Host, as a browser sends them.
BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: http://example.org/previous/page",
    "DNT: 1",
    "Sec-GPC: 1",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Cookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=abcdefghijklmnopqrstuvwxyz012345",
]

SERVERS = ("tapster", "bjoern", "gunicorn")


def fail(message):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def tool(name):
    """The path of a program, or None after saying that what needs it is skipped."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        print(f"SKIPPED: {name} is not installed", file=sys.stderr)
    return path


def default_binary():
    return ROOT / "target/release/tapster"


def check_binary(path):
    if not path.exists():
        fail(f"{path} is missing: run `cargo build --release` first, or give --tapster PATH")


def peers_python():
    """The Python with the peers, installed on first use; with it the names of those that could be installed."""
    python, done = VENV / "bin/python", VENV / "installed"
    wanted = [line for line in (BENCH / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    if not done.exists() or done.read_text().splitlines()[:1] != [" ".join(wanted)]:
        shutil.rmtree(VENV, ignore_errors=True)
        base = os.environ.get("PYO3_PYTHON", "python3")
        subprocess.run([base, "-m", "venv", str(VENV)], check=True, timeout=INSTALL_LIMIT)
        installed = []
        for requirement in wanted:
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
            result = subprocess.run(pip, timeout=INSTALL_LIMIT, capture_output=True, text=True)
            if result.returncode == 0:
                installed.append(requirement.split("==")[0])
            else:
                print(f"SKIPPED: {requirement} cannot be installed:\n{result.stderr[-2000:]}", file=sys.stderr)
        done.write_text(" ".join(wanted) + "\n" + " ".join(installed) + "\n")
    return python, done.read_text().splitlines()[1].split()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """One server process tree, pinned to some cores, stopped at the end of a `with` block."""

    def __init__(self, name, binary, workers=1, cores=None, prefix=(), log=None, env=None):
        self.name, self.port = name, free_port()
        command = list(prefix) + self.command(name, binary, workers)
        environment = dict(os.environ, PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1", **(env or {}))
        self.log = open(log or os.devnull, "wb")
        self.process = subprocess.Popen(
            command,
            cwd=APPS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )

    def command(self, name, binary, workers):
        address = f"127.0.0.1:{self.port}"
        if name == "tapster":
            return [str(binary), "--bind", address, "--workers", str(workers), "--log-level", "warning", "hello"]
        python, installed = peers_python()
        if name not in installed:
            fail(f"{name} is not installed")
        if name == "bjoern":
            return [str(python), str(BENCH / "serve_bjoern.py"), str(self.port)]
        return [str(python), "-m", "gunicorn", "--bind", address, "--workers", str(workers), "--no-control-socket", "hello"]

    def __enter__(self):
        deadline = time.monotonic() + START_LIMIT
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                    client.settimeout(START_LIMIT)
                    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    if client.recv(100).startswith(b"HTTP/1."):
                        return self
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                fail(f"{self.name} does not start; see {self.log.name}")
            time.sleep(0.01)

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
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

    def pids(self):
        """The process and all its descendants."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = Path(f"/proc/{entry}/stat").read_text()
                except OSError:
                    continue
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu_seconds(self):
        """User and system time of the tree: from schedstat in nanoseconds; utime and stime count whole ticks only."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory(self):
        """PSS of the tree in bytes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total
