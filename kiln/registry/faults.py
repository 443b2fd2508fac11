"""What goes wrong with a registry, in words: transient failures, and refusals read from an answer's error body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kiln.errors import AuthError, NotFoundError, RegistryError

if TYPE_CHECKING:
    from kiln.registry.wire import Response

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
ERROR_BODY_LIMIT = 64 << 10
_TEXT_LIMIT = 500

_HINTS = {
    401: "Log in with `kiln login {host}`; many registries answer the same for a repository that does not exist.",
    403: "The account may not do this here: ask for access, or use another account with `kiln login {host}`.",
    404: "Check the name and the tag; a private repository may look missing until `kiln login {host}`.",
    405: "The registry does not offer this (deleting, for one, has to be enabled in its configuration).",
    413: "Something before the registry limits the size of uploads (nginx: client_max_body_size).",
    429: "Wait, raise the limit by `kiln login {host}`, or name a mirror for {host} in config.toml.",
}


class TransientError(RegistryError):
    """A failure that may pass: worth `patience` attempts, the next after `wait` seconds (0: as the back-off says)."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        where: str = "",
        detail: str = "",
        status: int = 0,
        code: str = "",
        patience: int = 5,
        wait: float = 0,
    ) -> None:
        super().__init__(message, hint=hint, where=where, detail=detail, status=status, code=code)
        self.patience = patience
        self.wait = wait


def refusal(response: Response, host: str, what: str, where: str) -> RegistryError:
    """The error that an answer means. Reads (at most 64 KiB of) the error body of distribution-spec, "Error Codes"."""
    from kiln.registry.backoff import retry_after

    code, said = _said(response.read(ERROR_BODY_LIMIT, cut=True))
    status = response.status
    message = f"{_meaning(status, what)}: {said}" if said else _meaning(status, what)
    hint = _HINTS.get(status, "").format(host=host)
    if status in TRANSIENT:
        wait = retry_after(response.header("Retry-After"))
        return TransientError(message, hint=hint, where=where, status=status, code=code, wait=wait)
    kind = {401: AuthError, 403: AuthError, 404: NotFoundError}.get(status, RegistryError)
    return kind(message, hint=hint, where=where, status=status, code=code)


def _meaning(status: int, what: str) -> str:
    known = {
        401: f"the registry wants other credentials for {what} (401)",
        403: f"the registry denied {what} (403)",
        404: f"the registry does not have {what} (404)",
        429: f"the registry got too many requests to answer {what} (429)",
    }
    if 300 <= status < 400:
        return f"the registry redirected {what} to another place ({status}), which is not followed for this request"
    return known.get(status, f"the registry answered {status} for {what}")


def _said(body: bytes) -> tuple[str, str]:
    """(the error code, all errors in words); text that is not the specification's JSON is shown as it is. Of several codes
    the one that says what is missing counts, else the first."""
    import msgspec

    try:
        entries = msgspec.json.decode(body)["errors"]
        described = [_entry(entry) for entry in entries if isinstance(entry, dict)]
        codes = [str(entry.get("code", "")) for entry in entries]
        code = next((found for found in codes if found.endswith("_UNKNOWN")), next(iter(codes), ""))
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, IndexError, UnicodeDecodeError):
        return "", printable(body.decode("utf-8", "replace")) if b"<" not in body[:200] else ""
    return printable(code), printable("; ".join(described))


def _entry(entry: dict[str, object]) -> str:
    import msgspec

    text = ": ".join(str(entry[key]) for key in ("code", "message") if entry.get(key))
    detail = entry.get("detail")
    if not detail:
        return text
    return f"{text} ({detail if isinstance(detail, str) else msgspec.json.encode(detail).decode()})"


def printable(text: str) -> str:
    """One line of at most 500 characters without control characters: a registry must not write to the terminal."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _TEXT_LIMIT else line[:_TEXT_LIMIT] + "..."
