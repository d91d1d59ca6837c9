"""What `run` and `budget` share: tools, process trees as /proc shows them, the peers' virtual environment."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = Path(__file__).resolve().parent
VENV = ROOT / "target/bench-venv"

# Seconds for making the virtual environment, and for each package of it: some are built from source.
INSTALL_LIMIT = 600

# Debian packages of the tools, and what the peers are built with.
PACKAGES = {
    "ab": "apache2-utils",
    "wrk": "wrk",
    "valgrind": "valgrind",
    "strace": "strace",
    "cc": "build-essential",
    "libev": "libev-dev",
}

# Clock ticks of utime and stime in /proc/PID/stat.
TICKS = os.sysconf("SC_CLK_TCK")

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


def end_in_order():
    """Lets SIGTERM end the run as an exception does, so that no server stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def fail(message):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def tool(name):
    """The path of a program, or None."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def has_libev():
    return any(Path(prefix, "include/ev.h").exists() for prefix in ("/usr", "/usr/local"))


def need(names, install=False):
    """Ends the run unless all of these tools are there, or are installed from the distribution when `install` allows it."""

    def missing():
        return [name for name in names if not (has_libev() if name == "libev" else tool(name))]

    if not missing():
        return
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *sorted({PACKAGES[name] for name in missing()})]
    if install:
        subprocess.run(["apt-get", "update", "-q"], check=True, timeout=INSTALL_LIMIT)
        subprocess.run(command, check=True, timeout=INSTALL_LIMIT)
    if missing():
        fail(f"missing: {', '.join(missing())}. On Debian or Ubuntu: {' '.join(command)} (or give --install)")


def venv():
    """The virtual environment with the peers, installed on first use; returns the names of the packages that it has."""
    python, done = VENV / "bin/python", VENV / "installed"
    lines = (line.strip() for line in (BENCH / "requirements.txt").read_text().splitlines())
    wanted = [line for line in lines if line and not line.startswith("#")]
    if not done.exists() or done.read_text().splitlines()[:1] != [" ".join(wanted)]:
        print(f"installing {len(wanted)} packages to {VENV}", file=sys.stderr)
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
    return done.read_text().splitlines()[1].split()


def versions():
    """Name to version, of the packages in the virtual environment."""
    script = "from importlib.metadata import distributions as all\nfor d in all(): print(d.metadata['Name'].lower(), d.version)"
    found = subprocess.run([str(VENV / "bin/python"), "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return dict(line.split() for line in found.stdout.splitlines())


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tree(root):
    """A process and all its descendants, the root first."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def workers(root):
    """The processes of a tree that serve: all but a master."""
    return tree(root)[1:] or [root]


def cpu_seconds(root):
    """User and system time of a tree, with that of children that it has waited for (utime, stime, cutime, cstime)."""
    total = 0
    for pid in tree(root):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        total += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
    return total / TICKS


def rollup(pids, label):
    """The sum of one figure of /proc/PID/smaps_rollup, in bytes."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{label}:"))
    return total
