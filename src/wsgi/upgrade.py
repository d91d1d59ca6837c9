import os
import socket

# What moves bytes, changes how they move, or gives the descriptor away: the first use of one of them takes the connection over.
# The others only ask (getpeername, getsockopt), and whoever asks may still answer as usual.
USES = (
    "detach",
    "fileno",
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
    "send",
    "sendall",
    "sendmsg",
    "sendto",
    "setblocking",
    "settimeout",
    "shutdown",
)


class ClientSocket(socket.socket):
    """The connection of a request that asks for another protocol."""

    __slots__ = ("_claim", "_peer")

    def __init__(self, fd, claim, peer):
        self._claim = claim
        self._peer = peer
        super().__init__(fileno=fd)

    def getpeername(self):
        """The other end of the connection, also where this is one end of a pair, which does not know it."""
        return super().getpeername() if self._peer is None else self._peer

    def dup(self):
        """Another socket of the same connection: an ordinary one, since this one is not made as others are."""
        self._begin()
        other = socket.socket(fileno=os.dup(super().fileno()))
        other.settimeout(self.gettimeout())
        return other

    def _begin(self):
        claim = self._claim
        if claim is not None:
            claim()
            super().setblocking(True)
            self._claim = None

    def _real_close(self, *args):
        if self._claim is None:
            # The server has the connection as well, which would keep it open.
            try:
                super().shutdown(socket.SHUT_WR)
            except OSError:
                pass
        super()._real_close(*args)

    def __repr__(self):
        # The inherited one asks for the number, which would take the connection over.
        return f"<{type(self).__name__} at {id(self):#x}>"


def using(method):
    def call(self, *args, **kwargs):
        if self._claim is not None:
            self._begin()
        return method(self, *args, **kwargs)

    call.__name__ = method.__name__
    call.__doc__ = method.__doc__
    return call


for name in USES:
    setattr(ClientSocket, name, using(getattr(socket.socket, name)))
