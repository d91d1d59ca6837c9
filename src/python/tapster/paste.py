"""The server of PasteDeploy files: `use = egg:tapster#main` in their section `[server:main]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._call import _serve, with_address

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def main(app: WSGIApplication, global_conf: dict[str, str] | None = None, **options: Any) -> int:
    """Serves the application of the file. Its keys are the options of `tapster.serve`, and `host` and `port`."""
    host, port = options.pop("host", None), options.pop("port", None)
    return _serve(app, with_address(host, port, {key: _value(text) for key, text in options.items()}), "tapster.paste.main")


def _value(text: Any) -> Any:
    """Lines of a value are a list."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] if isinstance(text, str) else []
    return lines if len(lines) > 1 else text
