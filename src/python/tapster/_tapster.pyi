"""The extension module: what this package calls in it. Arguments are positional."""

from typing import Any, NoReturn, TextIO

__version__: str

def run(words: list[str], own: list[str], /) -> None: ...
def run_bare(words: list[str], own: list[str], /) -> NoReturn: ...
def run_worker(number: int, /) -> NoReturn: ...
def follow_parent(pid: int, /) -> None: ...
def environ(
    line: list[bytes],
    fields: list[tuple[bytes, bytes]],
    body: bytes,
    addresses: list[tuple[str, str]],
    root_path: str,
    errors: TextIO,
    /,
) -> dict[str, Any]: ...
def serve(
    script: list[str], words: list[str], app: str | None, title: str, options: str, warnings: list[str], /
) -> int: ...
