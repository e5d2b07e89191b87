"""serve.py PORT WORKERS THREADS: that many processes of the measured server on one port.

Each process has its own listening socket (SO_REUSEPORT), so that the kernel shares the connections out.
"""

import os
import signal
import socket
import sys

import waitress
from settings import ini

from authserver import app


def listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    return listener


def work(port: int, threads: int) -> None:
    wsgi = app.wsgi({}, **ini(str(port)))
    waitress.serve(wsgi, sockets=[listen(port)], threads=threads, channel_request_lookahead=0)


def main() -> None:
    port, workers, threads = (int(argument) for argument in sys.argv[1:4])
    children = []
    for _ in range(workers):
        child = os.fork()
        if not child:
            work(port, threads)
            os._exit(0)
        children.append(child)

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
