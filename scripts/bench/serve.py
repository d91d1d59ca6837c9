"""Starts one of the servers that have no command of their own: NAME APP PORT WORKERS THREADS (0: as recommended)."""

import importlib
import os
import sys

HOST = "127.0.0.1"


def bjoern(app, port, workers, _threads):
    import bjoern

    # tests/fork.py of bjoern: listen once, fork, let every process run.
    bjoern.listen(app, HOST, port)
    if fork(workers):
        bjoern.run()


def fastpysgi(app, port, workers, _threads):
    import fastpysgi

    fastpysgi.run(app, host=HOST, port=port, workers=workers)


def fork(workers):
    """So many processes, for servers that have none of their own; the parent waits. True in those that serve."""
    if workers == 1:
        return True
    for _ in range(workers):
        if os.fork() == 0:
            return True
    os.wait()
    return False


def cheroot(app, port, workers, threads):
    from cheroot import wsgi

    # Its own 10 s would close the idle connections of a workload.
    options = {"timeout": 300, "reuse_port": workers > 1, **({"numthreads": threads} if threads else {})}
    if fork(workers):
        server = wsgi.Server((HOST, port), app, **options)
        # It keeps ten.
        server.keep_alive_conn_limit = 6000
        server.start()


def waitress(app, port, workers, threads):
    import socket

    from waitress import serve

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(1024)
    if fork(workers):
        serve(app, sockets=[listener], connection_limit=6000, channel_timeout=300, asyncore_use_poll=True, **({"threads": threads} if threads else {}))


def tornado(app, port, workers, executor=None):
    import asyncio

    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets
    from tornado.process import fork_processes
    from tornado.wsgi import WSGIContainer

    sockets = bind_sockets(port, HOST)
    if workers > 1:
        fork_processes(workers)

    async def main():
        HTTPServer(WSGIContainer(app, executor() if executor else None)).add_sockets(sockets)
        await asyncio.Event().wait()

    asyncio.run(main())


def tornado_executor(app, port, workers, threads):
    from concurrent.futures import ThreadPoolExecutor

    tornado(app, port, workers, lambda: ThreadPoolExecutor(threads or 4))


def main():
    name, module, *numbers = sys.argv[1:]
    port, workers, threads = (int(number) for number in numbers)
    app = importlib.import_module(module).application
    if name == "tornado":
        tornado(app, port, workers)
    else:
        globals()[name.replace("-", "_")](app, port, workers, threads)


if __name__ == "__main__":
    main()
