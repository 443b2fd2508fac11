"""Which certificates a host is checked by: the system's, the settings', and Docker's `certs.d` folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kiln.errors import UsageError
from kiln.settings import Settings

if TYPE_CHECKING:
    import ssl

CERTS_D = Path("/etc/docker/certs.d")


def ca_files(settings: Settings, host: str) -> list[Path]:
    """The CA files given for one host: `ca` of its settings and `/etc/docker/certs.d/HOST/*.crt`."""
    own = settings.rules(host).ca
    return ([own] if own else []) + sorted((CERTS_D / host).glob("*.crt"))


def context(settings: Settings, host: str) -> ssl.SSLContext:
    """The TLS rules for one host; raises `UsageError` naming a file that is not a certificate."""
    import ssl

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.rules(host).verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        return made
    _trust_system(made, settings)
    for path in ca_files(settings, host):
        _trust(made, path)
    _identify(made, CERTS_D / host)
    return made


def _trust_system(made: ssl.SSLContext, settings: Settings) -> None:
    """As OpenSSL and Go do: SSL_CERT_FILE and SSL_CERT_DIR stand in for the system's certificates."""
    file, folder = settings.environment.get("SSL_CERT_FILE"), settings.environment.get("SSL_CERT_DIR")
    if not file and not folder:
        made.load_default_certs()
    if file:
        _trust(made, Path(file))
    if folder:
        made.load_verify_locations(capath=folder)


def _trust(made: ssl.SSLContext, path: Path) -> None:
    try:
        made.load_verify_locations(cafile=path)
    except OSError as bad:  # ssl.SSLError is one
        raise UsageError(
            f"cannot be used as a CA file: {bad.strerror or bad}",
            where=str(path),
            hint="Give a file of PEM certificates.",
        ) from bad


def _identify(made: ssl.SSLContext, folder: Path) -> None:
    """Docker's client certificates: `NAME.cert` with `NAME.key`."""
    for cert in sorted(folder.glob("*.cert")):
        try:
            made.load_cert_chain(cert, cert.with_suffix(".key"))
        except OSError as bad:
            raise UsageError(f"cannot be used with its key: {bad.strerror or bad}", where=str(cert)) from bad
