"""The fixture `tapster_server` of pytest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from typing import Protocol

    from _typeshed.wsgi import WSGIApplication

    from ._server import Server

    class StartServer(Protocol):
        """The type of the fixture's value."""

        def __call__(self, app: WSGIApplication | str, **options: Any) -> Server: ...


@pytest.fixture
def tapster_server() -> Iterator[StartServer]:
    """A function that starts a server as `tapster.start` does; all of them are stopped when the test ends.

        def test_front_page(tapster_server):
            server = tapster_server(app)
            assert urllib.request.urlopen(server.url).status == 200
    """
    import tapster

    servers: list[Server] = []

    def start(app: WSGIApplication | str, **options: Any) -> Server:
        servers.append(tapster.start(app, **options))
        return servers[-1]

    yield start
    for server in reversed(servers):
        server.stop()
