"""The environ that the server makes for a request (PEP 3333), for tests and tools that have none: `environ(Request(...))`.

It is made by the server's own code, so that it has the same keys and values, and what the server refuses is a ValueError here.
"""

import sys

from ._tapster import environ as _environ

# As typing.TYPE_CHECKING.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Mapping, Union

    _Headers = Union[Mapping[str, str], Iterable["tuple[str, str]"]]

__all__ = ["Request", "environ"]


class Request:
    """A request as a client sends it.

    `target` is the request target, encoded, with its query. `headers` is a mapping, or pairs where a name comes twice. Where HTTP/1.1
    needs a Host header and there is none, it is the server's address; a Content-Length is added for a body that has none.
    `client` and `server` are address and port; `root_path` is the option of that name.
    """

    def __init__(
        self,
        method: str = "GET",
        target: str = "/",
        headers: "_Headers" = (),
        body: bytes = b"",
        *,
        version: str = "HTTP/1.1",
        protocol: str = "http",
        client: "tuple[str, int]" = ("127.0.0.1", 0),
        server: "tuple[str, int]" = ("127.0.0.1", 8000),
        root_path: str = "",
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.version = version
        self.protocol = protocol
        self.client = client
        self.server = server
        self.root_path = root_path


def environ(request: "Any") -> "dict[str, Any]":
    """Returns the environ of a request: a `Request`, or what has the attributes of Tornado's `HTTPServerRequest`.

    `wsgi.errors` is standard error. There is no client that could leave or take early hints.
    """
    described = request if isinstance(request, Request) else _of_tornado(request)
    fields = [(_bytes(name), _bytes(value)) for name, value in _pairs(described.headers)]
    body = bytes(described.body or b"")
    names = {name.lower() for name, _ in fields}
    host, port = described.server
    if b"host" not in names and described.version != "HTTP/1.0":
        fields.append((b"Host", _bytes(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")))
    if body and not names & {b"content-length", b"transfer-encoding"}:
        fields.append((b"Content-Length", str(len(body)).encode()))
    line = [_bytes(part) for part in (described.method, described.target, described.version)]
    addresses = [(str(host), str(port)) for host, port in (described.client, described.server)]
    made: dict[str, Any] = _environ(line, fields, body, addresses, described.root_path, sys.stderr)
    if described.protocol == "https":
        made["wsgi.url_scheme"] = "https"
    made["wsgi.early_hints"] = _hint
    made["tapster.client_disconnected"] = _stays
    return made


def _of_tornado(request: "Any") -> Request:
    client = (request.remote_ip or "", 0)
    host = getattr(request, "host", "") or "127.0.0.1"
    name, _, port = host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "")
    protocol = getattr(request, "protocol", "http")
    server = (name.strip("[]"), int(port or (443 if protocol == "https" else 80)))
    return Request(
        request.method or "GET",
        request.uri or "/",
        request.headers,
        request.body,
        version=request.version,
        protocol=protocol,
        client=client,
        server=server,
    )


def _pairs(headers: "Any") -> "Iterable[tuple[str, str]]":
    # Tornado's headers are a mapping that joins what comes twice.
    items = getattr(headers, "get_all", None) or getattr(headers, "items", None)
    pairs: "Iterable[tuple[str, str]]" = headers if items is None else items()
    return pairs


def _bytes(text: "Union[str, bytes]") -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def _hint(headers: "Any") -> None:
    pass


def _stays() -> bool:
    return False
