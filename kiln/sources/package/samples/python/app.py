"""The smallest WSGI application."""

from collections.abc import Callable, Iterable


def application(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answers every request."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
