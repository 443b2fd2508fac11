"""What people have compiled becomes an image: named, looked at, put on a base, pushed.

The package's entries become layers in one pass over it; nothing of the base is read unless its template runs a command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from kiln import events
from kiln.baking.handedover import HandedOver, checksum_of, fetched, look
from kiln.baking.images import default_platform
from kiln.baking.packageline import built_notes, notes_of
from kiln.baking.session import Session
from kiln.errors import KilnError, NotFoundError, UsageError
from kiln.oci.image import Image
from kiln.oci.reference import Reference
from kiln.oci.reference import parse as parse_reference
from kiln.plan.outputs import Output
from kiln.plan.target import Context, Secret, Target
from kiln.sources.package import bases, leftout, templates
from kiln.sources.package.bases import Base
from kiln.sources.package.detect import Candidate, detect, explain_none, lone_war
from kiln.sources.package.fitness import warnings, with_program
from kiln.sources.package.naming import image_name
from kiln.sources.package.templates import PLACEHOLDERS

if TYPE_CHECKING:
    from kiln.baking.making import Making
    from kiln.baking.publish import Published

_MAKE_BASES = "Make the shipped bases with `kiln bake bases`, or name yours in $KILN_HOME/bases.toml."


class Request(Struct, frozen=True):
    """A package as it was handed over: `place` is a path or an http(s) URL. `base` empty means the one that fits best;
    `port` 0 the base's. `force` lets an existing tag be overwritten; `private` lets a URL lead into private networks;
    `debug` opens a shell where a command of the template fails."""

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
    debug: bool = False


class Prepared(Struct, frozen=True):
    """A package that was looked at: the candidates best first, the base and why it is that one, the Dockerfile, the
    context as `kiln build` takes it, the package's top folder (`root`), patterns of what is left out, and warnings."""

    name: Reference
    candidates: tuple[Candidate, ...]
    base: Base
    reason: str
    dockerfile: str
    context: Context
    place: str
    root: str = ""
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Packaging(Struct):
    """One package on its way, in a session."""

    session: Session
    request: Request
    known: dict[str, Base] = field(default_factory=dict)

    def prepare(self) -> Prepared:
        """Everything but building; raises `UsageError` for names, `SourceError` for the package."""
        request = self.request
        name = image_name(request.app, request.version, request.namespace, request.registry)
        checksum = checksum_of(request.checksum)
        self.known = load_bases(self.session.settings.home)
        wanted = find_base(self.known, request.base) if request.base else None
        threading.Thread(target=_read_engine, name="kiln-engine", daemon=True).start()
        wait = self._asked(name)
        if "://" in request.place:
            wait()  # nothing is downloaded for a name that is taken
        over = look(self.session, *fetched(self.session, request.place, checksum, private=request.private))
        wait()
        candidates = detect(over.tree.names, over.tree.head, name=over.name, root=over.tree.root)
        base, reason = (wanted, "it was asked for") if wanted else self._fitting(over, candidates)
        fitting = next((one for one in candidates if one.template == base.template), None)
        fitting = self._checked(over, base, fitting or Candidate(base.template, "", 0, over.tree.root))
        text = leftout.without(self._dockerfile(base, over, fitting), over.left_out)
        warned = self._warned(over, base, fitting)
        return Prepared(
            name, candidates, base, reason, text, over.context, over.name, over.tree.root, over.left_out, warned
        )

    def _asked(self, name: Reference) -> Callable[[], None]:
        """Begins to ask whether the name is free; what it returns waits for the answer and raises `KilnError`. A registry is
        asked while the package is read."""
        answer: Future[None] = Future()

        def ask() -> None:
            try:
                self._check_free(name)
                answer.set_result(None)
            except BaseException as bad:  # noqa: BLE001 (raised where the answer is waited for)
                answer.set_exception(bad)

        if not self.request.push:
            self._check_free(name)
            return lambda: None
        threading.Thread(target=ask, name="kiln-name", daemon=True).start()
        return answer.result

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

    def _fitting(self, over: HandedOver, candidates: tuple[Candidate, ...]) -> tuple[Base, str]:
        """(the base that fits best, why)."""
        for candidate in candidates:
            for base in self.known.values():
                if base.template == candidate.template:
                    return base, candidate.reason
        self._check_war(over)
        message = "no base fits this package" if candidates else "what this package is cannot be told"
        detail = "\n".join(f"  {one.reason}" for one in candidates) or explain_none()
        raise KilnError(
            message, where=self.request.place, detail=detail, hint="Name a base with --base: see `kiln bases list`."
        )

    def _check_war(self, over: HandedOver) -> None:
        if war := lone_war(over.tree.names):
            raise KilnError(f"it holds a war, {war}", where=self.request.place, hint="Give the war itself.")

    def _checked(self, over: HandedOver, base: Base, fitting: Candidate) -> Candidate:
        """The candidate with the program that is meant; raises `KilnError` for one that the base cannot start."""
        if base.template == "tomcat" and not fitting.score:
            self._check_war(over)
        if base.template != "raw":
            return fitting
        try:
            chosen = with_program(fitting, self.request.app, default_platform().architecture)
        except KilnError as bad:
            raise bad.at(self.request.place) from None
        if chosen.main and not PLACEHOLDERS["main"].fullmatch(chosen.main):
            raise UsageError(
                f"the name of the program {chosen.main!r} cannot stand in a Dockerfile", where=self.request.place,
                hint="Rename it: letters, digits, '_', '.', '+' and '-', the first a letter, a digit, '_' or '+'.",
            )  # fmt: skip
        return chosen

    def _dockerfile(self, base: Base, over: HandedOver, fitting: Candidate) -> str:
        template = templates.find(base.template, template_folders(self.session.settings.home))
        lone = over.name if over.package.kind == "elf" else ""
        if self.request.port:
            base = replace(base, port=self.request.port)
        values = base.values(
            app=self.request.app, version=self.request.version, owner=self.request.namespace, main=fitting.main,
            file=lone or (fitting.main if fitting.main.lower().endswith(".jar") else ""), folder=fitting.folder,
        )  # fmt: skip
        try:
            return templates.render(template, values, over.files())
        except UsageError as bad:
            raise bad.at(template.place) from None

    def _warned(self, over: HandedOver, base: Base, fitting: Candidate) -> tuple[str, ...]:
        """What a person should look at before the image is used."""
        found = [*over.package.warnings, *warnings(over.tree, base, fitting)]
        for text in found:
            self.session.report(events.Warned(time=events.now(), message=text, where=over.name))
        if not base.names_registry and self._stored(base) is None:  # an error where more is wanted than a look
            found.append(
                f"the base {base.name} ({base.image}) is not in the store: `kiln bake bases` makes the shipped ones"
            )
        return tuple(found)

    def _stored(self, base: Base) -> Image | None:
        name = parse_reference(base.image).with_default_tag()
        return self.session.images().stored(name, default_platform())

    def make(self, prepared: Prepared) -> Published:
        """Builds and, if that was asked for, pushes; raises the `KilnError` that stopped it."""
        from kiln.baking.making import Making, Manner
        from kiln.baking.publish import Publisher, Wanted

        session, request = self.session, self.request
        target = target_of(prepared, request)
        manner = Manner(debug=request.debug, lazy=request.push, early=prepared.name if request.push else None)
        making = Making(session, target, manner)
        images = self.images(making, prepared)
        own = frozenset(record.diff_id for record in making.records().values())
        notes = notes_of(request, prepared)
        notes |= built_notes(images[0].config.created or "", self._base_digest(target, prepared))
        wanted = Wanted((prepared.name,), request.push, making.manner.compression, notes, making.epoch, own)
        publisher = Publisher(session, wanted)
        return publisher.image(list(images), Output("image"))

    def images(self, making: Making, prepared: Prepared) -> tuple[Image, ...]:
        """The images of a target on a base; a base that is not there is an error of its own. Nobody is asked for one whose
        name has no registry."""
        base = prepared.base
        if not base.names_registry and self._stored(base) is None:
            raise KilnError(
                f"the base {base.name} ({base.image}) is not in the store", hint=_MAKE_BASES, where=base.place
            )
        try:
            return making.images()
        except NotFoundError as bad:
            raise KilnError(
                f"the base {base.name} ({base.image}) is neither in the store nor in its registry", hint=_MAKE_BASES,
                where=base.place, detail=f"  {bad}",
            ) from None  # fmt: skip
        except KilnError as bad:
            if base.names_registry and base.image in str(bad):
                bad.hint = f"The image of the base {base.name} is named in {base.place.partition(': base.')[0]}."
            raise

    def _base_digest(self, target: Target, prepared: Prepared) -> str:
        images = self.session.images(refresh=target.pull, lazy=self.request.push)
        return images.resolve(prepared.base.image, default_platform())[0]


def target_of(prepared: Prepared, request: Request) -> Target:
    """The target that the generated Dockerfile is."""
    from kiln.sources import dockerfile
    from kiln.sources.wish import Wish

    place = f"{prepared.base.template}.dockerfile"
    wish = Wish(context=str(prepared.context.folder), inline=prepared.dockerfile, place=place, secrets=request.secrets)
    return replace(dockerfile.load(wish, prepared.context), context=prepared.context)


def _read_engine() -> None:
    """Imports what builds while the package is read, most of which happens outside of Python."""
    from kiln.baking import making, publish  # noqa: F401


def find_base(known: Mapping[str, Base], name: str) -> Base:
    """The base of a name; raises `UsageError` with the nearest one, or those of a template that is called so."""
    if name in known:
        return known[name]
    from kiln.dockerfile.suggest import did_you_mean

    alike = [base.name for base in known.values() if base.template == name]
    hint = f"{name} is the template of {', '.join(alike)}." if alike else did_you_mean(name, list(known))
    listed = f"Bases are {', '.join(known)}." if known else "There are none: see `kiln bases add`."
    raise UsageError(f"there is no base {name!r}", hint=hint or listed)


def load_bases(home: Path) -> dict[str, Base]:
    """The shipped bases with those of the user's `bases.toml`."""
    own = home / bases.FILE
    return bases.load([own] if own.is_file() else [], template_folders(home))


def template_folders(home: Path) -> list[Path]:
    """Where the user's own templates are."""
    return [home / "templates"] if (home / "templates").is_dir() else []


def check(session: Session, base: Base) -> Image:
    """The image of a base's smallest package; raises what is wrong with the base or its template."""
    from kiln.baking.making import Making

    folder = session.store.scratch / f"check-{base.name}"
    for path, content in bases.sample(base).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    request = Request(str(folder), "check", "1", base.name, force=True)
    packaging = Packaging(session, request)
    prepared = packaging.prepare()
    return packaging.images(Making(session, target_of(prepared, request)), prepared)[0]
