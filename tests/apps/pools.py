"""An application that works with other processes, from several threads at once. POOLS_DIR holds gates and notes."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qs

DIR = os.environ.get("POOLS_DIR", ".")
# A child that nobody ends leaves by itself, so that a failed test leaves nothing behind.
CHILD_LIMIT = 30
SIZE, TASKS = 2, 8
KEPT, MAKING = {}, threading.Lock()


def application(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    body = CASES[environ["PATH_INFO"].strip("/")](query)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]


def square(number):
    time.sleep(0.002)
    return number * number


def pool(method):
    return multiprocessing.get_context(method).Pool(SIZE)


def executor(method):
    return concurrent.futures.ProcessPoolExecutor(SIZE, mp_context=multiprocessing.get_context(method))


def run_program():
    command = [sys.executable, "-S", "-c", f"print(sum(n * n for n in range({TASKS})))"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def work(query):
    """A pool, an executor or a program for this request alone: made, used, ended."""
    kind, _, method = query["kind"].partition("-")
    if kind == "run":
        return run_program()
    with {"pool": pool, "executor": executor}[kind](method) as workers:
        return str(sum(workers.map(square, range(TASKS))))


def kept(query):
    """The same with one of each kind that stays."""
    kind, _, method = query["kind"].partition("-")
    if kind == "run":
        return run_program()
    with MAKING:
        if query["kind"] not in KEPT:
            KEPT[query["kind"]] = {"pool": pool, "executor": executor}[kind](method)
    return str(sum(KEPT[query["kind"]].map(square, range(TASKS))))


def outlive(seconds):
    deadline = time.monotonic() + min(seconds, CHILD_LIMIT)
    while time.monotonic() < deadline and not os.path.exists(os.path.join(DIR, "gate")):
        time.sleep(0.005)


def child(query):
    """A child that lives on: its process id."""
    pid = os.fork()
    if pid == 0:
        outlive(CHILD_LIMIT)
        os._exit(0)
    return str(pid)


def stray(query):
    """A child that forgets to end."""
    pid = os.fork()
    if pid > 0:
        with open(os.path.join(DIR, "strays"), "a") as file:
            file.write(f"{pid}\n")
    time.sleep(float(query["sleep"]))
    return "one of two" if pid else "the other"


def busy(query):
    """Leaves a long task to a pool, or to a process of its own that nobody ends; the process id of a child."""
    if query["kind"] == "process":
        process = multiprocessing.get_context("fork").Process(target=outlive, args=(CHILD_LIMIT,))
        process.start()
        return str(process.pid)
    KEPT["busy"] = pool("fork")
    pid = KEPT["busy"].apply(os.getpid)
    KEPT["busy"].apply_async(outlive, [CHILD_LIMIT])
    return str(pid)


def wait(query):
    with open(os.path.join(DIR, "inside"), "a") as file:
        file.write("waiting\n")
    outlive(CHILD_LIMIT)
    return "waited"


def end(query):
    """Ends what was kept; how many children are left."""
    for workers in KEPT.values():
        if isinstance(workers, concurrent.futures.Executor):
            workers.shutdown()
        else:
            workers.terminate()
            workers.join()
    KEPT.clear()
    return str(len(multiprocessing.active_children()))


CASES = {"work": work, "kept": kept, "child": child, "stray": stray, "busy": busy, "wait": wait, "end": end}
