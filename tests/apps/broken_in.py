"""An application that somebody has broken into: each path does its worst to descriptors that a worker has. Everything ends by itself."""
import array
import ctypes
import fcntl
import hashlib
import mmap
import os
import random
import select
import socket
import stat
import struct
import time

# Longest attack in seconds, and most messages of one: nothing here runs for ever, whatever the server does.
SECONDS = 10
MESSAGES = 20_000

F_ADD_SEALS, F_SEAL_FUTURE_WRITE = 1033, 0x10
# Room that the worker's end of its channel has, as the kernel counts it; the queue of the workers has another.
CHANNEL_BUFFER = 2 * 2 * 64 * 1024


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


def sockets():
    for number, name in descriptors().items():
        if name.startswith("socket:"):
            yield socket.socket(fileno=os.dup(number))


def channel():
    for found in sockets():
        if found.type == socket.SOCK_SEQPACKET and found.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == CHANNEL_BUFFER:
            return found
    raise LookupError("the channel to the master")


def flood(message, ancillary=()):
    end, to = time.monotonic() + SECONDS, channel()
    for _ in range(MESSAGES):
        if time.monotonic() > end:
            break
        try:
            to.sendmsg([message], ancillary)
        except BlockingIOError:
            time.sleep(0)


def texts():
    flood(b"A" + b"x" * 60_000)


def dismissals():
    flood(b"T")


def garbage():
    flood(b"\x00\x1b]0;owned\x07\n2026-01-01 [1] [master] CRITICAL forged")


def empty():
    flood(b"")


def long():
    flood(b"A" * 100_000)


def rights():
    """A connection that takes a minute to close, if the last to close it is somebody else."""
    listener = socket.create_server(("127.0.0.1", 0))
    stream = socket.create_connection(listener.getsockname())
    kept = listener.accept()
    stream.setblocking(False)
    try:
        while True:
            stream.send(b"x" * 65536)
    except BlockingIOError:
        stream.setblocking(True)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    try:
        channel().sendmsg([b"T"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [stream.fileno()]))])
    except PermissionError:
        channel().send(b"what a kernel that lets nobody send descriptors makes of it")
    globals()["kept"] = kept


def deaf():
    """Never reads the channel again."""
    time.sleep(SECONDS)


def shared():
    return [number for number, name in descriptors().items() if name.startswith("/memfd:")]


def scribble():
    """Random bytes, and then the largest numbers, wherever memory is shared."""
    for number in shared():
        size = os.fstat(number).st_size
        if size:
            memory = mmap.mmap(number, size)
            memory[:] = random.Random(1).randbytes(size)
            memory[:] = b"\xff" * size


def lines():
    """A request line that would be records of the log, in every call of the scoreboard."""
    for number in shared():
        size = os.fstat(number).st_size
        if size:
            memory = mmap.mmap(number, size)
            memory[:] = (b"\n2026-01-01 [1] [master] CRITICAL forged \x1b[31m\x00" * size)[:size]
    os.kill(os.getpid(), 9)


def seal():
    for number in shared():
        try:
            fcntl.fcntl(number, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
        except OSError:
            pass


def grow():
    """As much memory as it gets, that would outlive the worker."""
    for number in shared():
        try:
            os.pwrite(number, b"x" * 50_000_000, 0)
            os.ftruncate(number, 150_000_000)
        except OSError:
            pass


def listeners():
    for found in sockets():
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.shutdown(socket.SHUT_RDWR)


def connected_listeners():
    """The listening sockets become connections to somebody who says nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    silent = socket.create_server(("127.0.0.1", 0))
    for found in sockets():
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            libc.connect(found.fileno(), bytes(16), 16)
            found.setblocking(True)
            found.connect(silent.getsockname())
    globals()["kept"] = silent


def connected_listeners_often():
    end = time.monotonic() + SECONDS / 5
    while time.monotonic() < end:
        try:
            connected_listeners()
        except OSError:
            pass
        for found in sockets():
            if found.type == socket.SOCK_STREAM and found.family == socket.AF_INET:
                found.setblocking(False)


def everything():
    """Blocking, truncated, moved, shut down; then garbage to all of it; then closed."""
    own = descriptors()
    for number in own:
        try:
            fcntl.fcntl(number, fcntl.F_SETFL, os.O_NONBLOCK)
            os.lseek(number, 1 << 40, os.SEEK_SET)
        except OSError:
            pass
    for number in own:
        for act in (lambda: os.write(number, b"\xff" * 5000), lambda: os.ftruncate(number, 0)):
            try:
                act()
            except OSError:
                pass
    for found in sockets():
        try:
            found.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    os.closerange(0, 4096)


def syslog():
    """The system log's socket goes to one that nobody reads, is full, and waits."""
    full = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    full.bind(f"\0tapster-test-{os.getpid()}")
    for found in sockets():
        if found.type == socket.SOCK_DGRAM:
            found.connect(full.getsockname())
            try:
                while True:
                    found.send(b"x", socket.MSG_DONTWAIT)
            except BlockingIOError:
                found.setblocking(True)
    globals()["kept"] = full


def is_open(number):
    try:
        return os.fstat(number)
    except OSError:
        return None


def pipes():
    """Every pipe that the worker writes to is full, and waits."""
    for number in filter(is_open, descriptors()):
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            try:
                fcntl.fcntl(number, fcntl.F_SETFL, os.O_NONBLOCK)
                while True:
                    os.write(number, b"x" * 4096)
            except BlockingIOError:
                fcntl.fcntl(number, fcntl.F_SETFL, 0)
            except OSError:
                pass


def files():
    """No flag of the log files is left."""
    for number, name in descriptors().items():
        if name.endswith(".log"):
            fcntl.fcntl(number, fcntl.F_SETFL, 0)
            os.lseek(number, 0, os.SEEK_SET)


def traced():
    """A debugger holds on to the worker and ends it: until the debugger leaves, its parent cannot wait for it (ptrace(2))."""
    PR_SET_PTRACER, PTRACE_SEIZE = 0x59616D61, 0x4206
    libc, worker = ctypes.CDLL(None, use_errno=True), os.getpid()
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1 & (1 << 64) - 1), 0, 0, 0)
    if os.fork() == 0:
        # A process of its own, which the death of the worker does not end, nor that of its group; the end of the test does.
        os.setsid()
        os.closerange(0, 4096)
        if libc.ptrace(PTRACE_SEIZE, worker, 0, 0) == 0:
            os.kill(worker, 9)
            end = time.monotonic() + 3 * SECONDS
            while os.path.exists(os.environ["RUNTIME_DIRECTORY"]) and time.monotonic() < end:
                time.sleep(0.02)
        os._exit(0)
    time.sleep(SECONDS)


def leaves_at_once():
    """Each worker from now on leaves as soon as it is ready, by its own account, and stays."""
    with open(os.environ["LEAVES_AT_ONCE"], "w"):
        pass
    channel().send(b"D")


def cut_queue():
    """The queue of the workers takes and gives nothing any more."""
    for found in sockets():
        if found.type == socket.SOCK_SEQPACKET and found.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) != CHANNEL_BUFFER:
            found.shutdown(socket.SHUT_RDWR)


def queue_garbage():
    """Packets that no worker hands over: empty ones, nonsense, directories, polls, files in memory, listening sockets, the queue itself."""
    ends = [s for s in sockets() if s.type == socket.SOCK_SEQPACKET]
    ends = [s for s in ends if s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) != CHANNEL_BUFFER]
    things = [os.open("/", os.O_RDONLY), os.memfd_create("x"), select.epoll().fileno(), *os.pipe(), *(s.fileno() for s in ends)]
    things += [s.fileno() for s in sockets() if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
    end, count = time.monotonic() + SECONDS / 4, 0
    while time.monotonic() < end and count < MESSAGES:
        for to in ends:
            for packet in (b"", b"nonsense", b"\x01i\x00\x00" + bytes(28), b"\x01r\x00\x04" + b"\xff" * 28 + b"GET / HTTP/1.1\r\n\r\n"):
                for thing in ([], *([number] for number in things), things):
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", thing))] if thing else []
                    count += 1
                    try:
                        to.sendmsg([packet], rights, socket.MSG_DONTWAIT)
                    except OSError:
                        pass


def queue_same():
    """One connection again and again, which the attacker keeps: to the poll of a worker it is there already."""
    ends = [s for s in sockets() if s.type == socket.SOCK_SEQPACKET]
    ends = [s for s in ends if s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) != CHANNEL_BUFFER]
    kept, given = socket.socketpair()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given.fileno()]))]
    end = time.monotonic() + SECONDS / 4
    while time.monotonic() < end:
        for to in ends:
            for input in (b"", bytes(8)):
                try:
                    to.sendmsg([b"\x04i" + bytes(52) + input], rights, socket.MSG_DONTWAIT)
                except OSError:
                    time.sleep(0.001)


def queue_sessions():
    """Connections with TLS sessions that nobody has negotiated: wrong keys, parts without end, numbers that are over, requests in them."""
    ends = [s for s in sockets() if s.type == socket.SOCK_SEQPACKET]
    ends = [s for s in ends if s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) != CHANNEL_BUFFER]
    # The rules of a server that asks for no certificate, and others.
    rules = [hashlib.sha256(b"None V1_2 ").digest(), bytes(32)]
    request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    far = 2**64 - 1

    def session(aead=b"A", rules=rules[0], version=1, suite=0x1302, number=0, certificate=b"", opened=b"", incoming=b"", length=None):
        one = struct.pack("<Q12s", number, b"i" * 12) + b"k" * (16 if aead == b"a" else 32)
        length = len(opened) if length is None else length
        begin = struct.pack("<B1sBH", version, aead, 0, suite) + rules + one + one
        return begin + struct.pack("<H", len(certificate)) + certificate + struct.pack("<I", length) + opened + incoming

    sessions = [session(aead, number=number, version=version, opened=opened)
                for aead in (b"a", b"A", b"c") for number in (0, 2**23, 2**63, far) for version in (0, 1) for opened in (b"", request)]
    sessions += [session(rules=rules[1], opened=request), session(suite=0xFFFF, certificate=b"\x30\x84\xff\xff\xff\xff" * 1000, opened=request)]
    sessions += [session(incoming=b"\x17\x03\x03\x40\x00" + bytes(40_000)), session(incoming=b"\x17\x03\x03\xff\xff" + bytes(40_000))]
    sessions += [session(incoming=b"\x17\x03\x03\x00\x00" * 9_000), session(opened=request * 1_500), session(opened=b"x" * 48_000)]
    sessions += [session(length=2**32 - 1), session(version=2), session(aead=b"?"), session()[:50], b"\x01", bytes(48 * 1024), bytes(48 * 1024 + 1)]
    # Others that nobody has seen yet.
    sessions += [bytes(b ^ random.randrange(256) if random.random() < 0.1 else b for b in session(opened=request)) for _ in range(50)]
    kept, end = [], time.monotonic() + SECONDS / 2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for index, packed in enumerate(sessions):
            for kind, listening, size in ((b"r", 0, 0), (b"i", 0, 0), (b"p", 0, 0), (b"i", 1, 0), (b"i", 9, 0), (b"r", 0, 2**31), (b"i", 0, 1 - len(packed))):
                if time.monotonic() > end:
                    return
                client = socket.create_connection(listener.getsockname())
                served, (_, port) = listener.accept()
                address = struct.pack("<H16s", port, bytes([127, 0, 0, 1]))
                head = struct.pack("<B1sBBHQ", 4, kind, 0, 1, listening, far if index % 2 else 0) + address + bytes(18)
                head += struct.pack("<I", (len(packed) + size) % 2**32)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [served.fileno()]))]
                for to in ends[:1]:
                    try:
                        to.sendmsg([head, packed, request if kind == b"r" else b""], rights, socket.MSG_DONTWAIT)
                    except OSError:
                        pass
                served.close()
                # Some send what is no record, some leave.
                client.sendall((b"\x17\x03\x03\x00\x30" + bytes(48), b"\x15\x03\x03\x00\x02\x01\x00", b"GET / HTTP/1.1\r\n", b"")[index % 4])
                kept = kept[-100:] + ([client] if index % 3 else [])


def orphans():
    """As many children as it can make, which end at once and are left to whoever inherits them."""
    end = time.monotonic() + SECONDS / 2
    while time.monotonic() < end:
        if os.fork() == 0:
            for _ in range(20):
                if os.fork() == 0:
                    os._exit(0)
            os._exit(0)


def brothers():
    """Processes that are children of the master, and end at once."""
    CLONE_PARENT, number = 0x8000, {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(200):
        if libc.syscall(number, CLONE_PARENT | 17, 0, 0, 0, 0) == 0:
            os._exit(0)


if os.path.exists(os.environ.get("LEAVES_AT_ONCE", "")):
    own = channel()
    own.send(b"RPython")
    own.send(b"D")
    time.sleep(SECONDS)
    os._exit(0)


def app(environ, start_response):
    act = globals().get(environ["PATH_INFO"].strip("/"))
    if act is not None:
        act()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
