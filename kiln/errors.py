"""The one error root. Raised below, shown once at the entry points.

Each error carries a message that names the input, a hint that says what to do, and a place (`file:line`, URL or key).
The exit code of an error is a property of its class, so that one table serves every entry point.
"""

from __future__ import annotations


class KilnError(Exception):
    """A failure that a person can act on. `exit_code` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", where: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def at(self, where: str) -> KilnError:
        """This error with a place, unless it already has one (the innermost place is the exact one)."""
        if not self.where:
            self.where = where
        return self


class UsageError(KilnError):
    """The command line or a file given on it cannot be understood as a request."""

    exit_code = 2


class DockerfileError(KilnError):
    """A Dockerfile that cannot be parsed or evaluated; `where` is `file:line`."""


class PlanError(KilnError):
    """Targets that cannot be built together: circular, missing, disabled or defined twice; nothing was built."""


class SourceError(KilnError):
    """A context, a copied path or an archive that cannot be used."""


class StoreError(KilnError):
    """Content in the store is missing or damaged, or cannot be written."""


class CorruptError(StoreError):
    """Bytes that do not have the digest they were asked for by."""


class RegistryError(KilnError):
    """A registry refused, failed, or cannot be reached; `where` is the reference or the URL."""

    def __init__(
        self, message: str, *, hint: str = "", where: str = "", detail: str = "", status: int = 0, code: str = ""
    ) -> None:
        super().__init__(message, hint=hint, where=where, detail=detail)
        self.status = status
        self.code = code


class NotFoundError(RegistryError):
    """The registry does not have the manifest or blob."""


class AuthError(RegistryError):
    """The registry wants other credentials."""


class RunError(KilnError):
    """A RUN step ended with a code other than 0, or was stopped. `code` is the exit code of the command."""

    def __init__(
        self, message: str, *, code: int = 1, log_tail: tuple[str, ...] = (), log_path: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.log_tail = log_tail
        self.log_path = log_path


class HookError(KilnError):
    """A component's hook failed; `where` is its script."""


class SandboxError(KilnError):
    """The machine cannot run a step: no runtime, no namespaces, no overlay."""


class CancelledBuild(KilnError):
    """The user ended the build, or another part of it failed."""

    exit_code = 130


class TimedOut(CancelledBuild):
    """The build took longer than it was given."""

    exit_code = 1
