"""What people have compiled becomes an image: named, looked at, put on a base, pushed.

The package's entries become layers in one pass over it; nothing of the base is read unless its template runs a command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from kiln import events
from kiln.baking.images import default_platform
from kiln.baking.making import Making, Manner
from kiln.baking.publish import Published, Publisher, Wanted
from kiln.baking.session import Session
from kiln.engine.archivefiles import ArchiveFiles
from kiln.errors import KilnError, NotFoundError, UsageError
from kiln.oci.digest import is_digest
from kiln.oci.image import Image
from kiln.oci.reference import Reference
from kiln.oci.reference import parse as parse_reference
from kiln.plan.outputs import Output
from kiln.plan.target import Context, Secret, Target
from kiln.sources import dockerfile
from kiln.sources.package import bases, templates
from kiln.sources.package.bases import Base
from kiln.sources.package.detect import Candidate, detect, explain_none
from kiln.sources.wish import Wish
from kiln.store.package.package import Package, open_package

_APP = re.compile(r"^[a-zA-Z_]+[a-zA-Z0-9\-_]*$")
_MOST_BYTES = 4 << 30
_MOST_SECONDS = 900.0


class Request(Struct, frozen=True):
    """A package as it was handed over: `place` is a path or an http(s) URL. `base` empty means the one that fits best;
    `port` 0 the base's. `force` lets an existing tag be overwritten; `private` lets a URL lead into private networks."""

    place: str
    app: str
    version: str
    base: str = ""
    memo: str = ""
    namespace: str = ""
    registry: str = ""
    push: bool = False
    checksum: str = ""
    port: int = 0
    force: bool = False
    private: bool = False
    secrets: Mapping[str, Secret] = field(default_factory=dict)


class Prepared(Struct, frozen=True):
    """A package that was looked at: the candidates best first, the base and why it is that one, the Dockerfile, and the
    context as `kiln build` takes it."""

    name: Reference
    candidates: tuple[Candidate, ...]
    base: Base
    reason: str
    dockerfile: str
    context: Context
    place: str


class Packaging(Struct):
    """One package on its way, in a session."""

    session: Session
    request: Request
    known: dict[str, Base] = field(default_factory=dict)

    def prepare(self) -> Prepared:
        """Everything but building; raises `UsageError` for names, `SourceError` for the package."""
        name = image_name(self.request)
        _check_checksum(self.request.checksum)
        self.known = load_bases(self.session.settings.home)
        self._check_free(name)
        path, shown = self._fetched()
        package = open_package(path, self.session.store.scratch, name=shown)
        candidates = detect(package.entries, lambda inner: package.head(inner, 1 << 16), name=shown)
        base, reason = self._base(candidates)
        fitting = next((one for one in candidates if one.template == base.template), Candidate(base.template, "", 0))
        text = self._dockerfile(base, package, fitting, shown)
        context = Context("archive", path, reference=fitting.root, name=str(path))
        self.session.contexts.provide(context, ArchiveFiles(package, fitting.root))
        return Prepared(name, candidates, base, reason, text, context, shown)

    def _check_free(self, name: Reference) -> None:
        """An image that is there is not overwritten unless that was asked for."""
        if self.request.force:
            return
        if self.request.push:
            found = self.session.client.head_manifest(name)
        else:
            found = self.session.store.layout.find(str(name))
        if found is not None:
            raise KilnError(
                f"the image {name.familiar} exists already ({found.digest[:19]})",
                hint="Give another --version, or overwrite it with --force.",
            )

    def _fetched(self) -> tuple[Path, str]:
        """(path of the package, the name it came with)."""
        place = self.request.place
        if not place.startswith(("http://", "https://")):
            return self._local(place)
        from kiln.sources.fetch import download
        from kiln.sources.policy import Policy

        step, title, begin = "download", f"[package] download {_without_query(place)}", events.now()
        say = self.session.report
        say(events.StepStarted(time=begin, step=step, name=title))
        error = "stopped"
        try:
            path, _ = download(
                place, self.session.store.scratch, self.session.settings, self.session.cancel, limit=_MOST_BYTES,
                checksum=self.request.checksum, policy=Policy(private=self.request.private, netrc=True),
                timeout=_MOST_SECONDS, sent=True,
            )  # fmt: skip
            error = ""
        finally:
            seconds = round(events.now() - begin, 3)
            say(events.StepFinished(time=events.now(), step=step, name=title, seconds=seconds, error=error))
        return path, path.name

    def _local(self, place: str) -> tuple[Path, str]:
        path = Path(place).absolute()
        if not path.exists():
            raise UsageError("there is no such package", where=place, hint="Give a file, a folder, or an http(s) URL.")
        if self.request.checksum:
            if path.is_dir():
                raise UsageError("--checksum is for files and URLs", where=place)
            _check_digest(path, self.request.checksum)
        return path, path.name

    def _base(self, candidates: tuple[Candidate, ...]) -> tuple[Base, str]:
        """(the base, why)."""
        wanted = self.request.base
        if wanted:
            if wanted not in self.known:
                from kiln.dockerfile.suggest import did_you_mean

                hint = did_you_mean(wanted, list(self.known)) or f"Bases are {', '.join(self.known)}."
                raise UsageError(f"there is no base {wanted!r}", hint=hint)
            return self.known[wanted], "it was asked for"
        for candidate in candidates:
            for base in self.known.values():
                if base.template == candidate.template:
                    return base, candidate.reason
        message = "no base fits this package" if candidates else "what this package is cannot be told"
        detail = "\n".join(f"  {one.reason}" for one in candidates) or explain_none()
        raise KilnError(
            message, where=self.request.place, detail=detail, hint="Name a base with --base: see `kiln bases list`."
        )

    def _dockerfile(self, base: Base, package: Package, fitting: Candidate, shown: str) -> str:
        template = templates.find(base.template, template_folders(self.session.settings.home))
        lone = shown if package.kind == "elf" else ""
        if self.request.port:
            base = replace(base, port=self.request.port)
        prefix = f"{fitting.root}/" if fitting.root else ""
        files = {path.removeprefix(prefix) for path in package.entries if path.startswith(prefix)}
        values = base.values(
            app=self.request.app,
            version=self.request.version,
            owner=self.request.namespace,
            main=fitting.main,
            file=lone,
        )
        try:
            return templates.render(template, values, files)
        except UsageError as bad:
            raise bad.at(template.place) from None

    def make(self, prepared: Prepared) -> Published:
        """Builds and, if that was asked for, pushes; raises the `KilnError` that stopped it."""
        session, request = self.session, self.request
        wish = Wish(
            context=str(prepared.context.folder),
            inline=prepared.dockerfile,
            place=f"{prepared.base.template}.dockerfile",
            secrets=request.secrets,
        )
        target = replace(dockerfile.load(wish, prepared.context), context=prepared.context)
        making = Making(session, target, Manner(lazy=request.push, early=prepared.name if request.push else None))
        images = self.images(making, prepared)
        own = frozenset(record.diff_id for record in making.records().values())
        notes = notes_of(request, prepared, self._base_digest(target, prepared), images[0])
        wanted = Wanted((prepared.name,), request.push, making.manner.compression, notes, making.epoch, own)
        publisher = Publisher(session, wanted)
        return publisher.image(list(images), Output("image"))

    def images(self, making: Making, prepared: Prepared) -> tuple[Image, ...]:
        """The images of a target on a base; a base that is not there is an error of its own."""
        try:
            return making.images()
        except NotFoundError as bad:
            raise _no_base(prepared.base, bad) from None
        except KilnError as bad:
            if prepared.base.image in str(bad):
                bad.hint = "Make the shipped bases with `kiln bake bases`, or name yours in $KILN_HOME/bases.toml."
            raise

    def _base_digest(self, target: Target, prepared: Prepared) -> str:
        images = self.session.images(refresh=target.pull, lazy=self.request.push)
        return images.resolve(prepared.base.image, default_platform())[0]


def image_name(request: Request) -> Reference:
    """`REGISTRY/NAMESPACE/APP:VERSION`; raises `UsageError` with the reason why a name cannot be."""
    if not _APP.match(request.app):
        raise UsageError(
            f"--app {request.app!r}: an application's name begins with a letter or '_' and goes on with letters, digits,"
            " '-' and '_'", hint="For example --app shop.",
        )  # fmt: skip
    parts = [part.strip("/") for part in (request.registry, request.namespace, request.app) if part]
    try:
        return parse_reference(f"{'/'.join(parts)}:{request.version}")
    except UsageError as bad:
        raise UsageError(f"the image cannot be named like that: {bad.message}", hint=bad.hint) from None


def load_bases(home: Path) -> dict[str, Base]:
    """The shipped bases with those of the user's `bases.toml`."""
    own = home / bases.FILE
    return bases.load([own] if own.is_file() else [], template_folders(home))


def template_folders(home: Path) -> list[Path]:
    """Where the user's own templates are."""
    return [home / "templates"] if (home / "templates").is_dir() else []


def notes_of(request: Request, prepared: Prepared, base_digest: str, image: Image) -> dict[str, str]:
    """What the manifest says of the package (OCI image-spec, "Pre-Defined Annotation Keys")."""
    prefix = "org.opencontainers.image."
    found = {
        "title": request.app, "version": request.version, "created": image.config.created,
        "source": _without_query(request.place) if "://" in request.place else prepared.place,
        "base.name": prepared.base.image, "base.digest": base_digest, "description": request.memo,
    }  # fmt: skip
    return {f"{prefix}{name}": value for name, value in found.items() if value}


def _no_base(base: Base, bad: NotFoundError) -> KilnError:
    return KilnError(
        f"the base {base.name} ({base.image}) is neither in the store nor in its registry",
        hint="Make the shipped bases with `kiln bake bases`, or name yours in $KILN_HOME/bases.toml.", where=base.place,
        detail=f"  {bad}",
    )  # fmt: skip


def _check_checksum(text: str) -> None:
    if text and not (is_digest(text.lower()) and text.startswith("sha256:")):
        raise UsageError(f"--checksum {text}: is no digest", hint="Write sha256: and 64 hex digits.")


def _check_digest(path: Path, checksum: str) -> None:
    import hashlib

    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if digest != checksum.lower():
        raise KilnError(f"the file has the digest {digest}, not {checksum}", where=str(path))


def _without_query(url: str) -> str:
    from kiln.sources.git import shown

    return shown(url)


def build_line(prepared: Prepared, request: Request, quote: Callable[[str], str]) -> str:
    """The `kiln build` command that does the same with the Dockerfile in a file."""
    inside = f"#:{prepared.context.reference}" if prepared.context.reference else ""
    place = prepared.place if "://" in request.place else request.place
    words = ["kiln", "build", "-f", "Dockerfile", "-t", prepared.name.familiar, *(["--push"] if request.push else [])]
    return " ".join([*map(quote, words), quote(f"{place}{inside}")])


def check(session: Session, base: Base) -> Image:
    """The image of a base's smallest package; raises what is wrong with the base or its template."""
    folder = session.store.scratch / f"check-{base.name}"
    for path, content in bases.check_package(base.template).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    request = Request(str(folder), "check", "1", base.name, force=True)
    packaging = Packaging(session, request)
    prepared = packaging.prepare()
    wish = Wish(context=str(folder), inline=prepared.dockerfile, place=f"{base.template}.dockerfile")
    target = replace(dockerfile.load(wish, prepared.context), context=prepared.context)
    return packaging.images(Making(session, target), prepared)[0]
