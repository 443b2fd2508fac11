"""What a package is, by what lies in it: the templates that fit, best first, each with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from kiln.store.entry import DIR, FILE, Entry
from kiln.store.package import elf

HEAD = 1 << 16
# Folders that mean something by their name, and so are not what a release is wrapped in.
_MARKS = ("WEB-INF", "META-INF", "htdocs", "bin", "lib", "usr", "opt", "etc")
_MAX_PROGRAMS = 40
_MODULES = ("wsgi.py", "asgi.py", "app.py", "main.py", "application.py")
_NAMED = ("wsgi.py", "asgi.py")
_CALLABLE = re.compile(
    r"^(?:(?P<made>app|application|api)\s*(?::[^=\n]+)?=\s*(?:[\w.]*(?:Flask|FastAPI|Starlette|Quart|Sanic|Bottle|Litestar|"
    r"create_app|make_app|get_wsgi_application|get_asgi_application)\s*\()"
    r"|(?:async\s+)?def\s+(?P<written>app|application)\s*\(\s*(?:environ|scope)\b)",
    re.MULTILINE,
)  # fmt: skip
_MAIN_CLASS = re.compile(r"^Main-Class:[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)
_LIBRARY = re.compile(r"\.so(?:\.|$)")
_LOOKED_FOR = """\
tomcat: WEB-INF/, or a name that ends in .war
jar: META-INF/MANIFEST.MF with Main-Class
php: composer.json, htdocs/, index.php
python: requirements.txt, pip_requirements.txt, pyproject.toml, wsgi.py, asgi.py, app.py with a WSGI or ASGI callable
nodejs: package.json
static: index.html
raw: a file called control at the root, or a program (ELF) at the root or in bin/"""

Read = Callable[[str], bytes]


class Candidate(Struct, frozen=True):
    """A template that fits. A higher `score` fits better; `root` is the folder of the package whose content is meant
    (empty: all of it); `main` is what is started, as far as it shows: a class, `module:callable`, a program's path below
    `root`; `architecture` is what a program runs on."""

    template: str
    reason: str
    score: int
    root: str = ""
    main: str = ""
    architecture: str = ""


class _Sign(Struct, frozen=True):
    template: str
    score: int
    reason: str
    main: str = ""
    architecture: str = ""


class _Tree(Struct, frozen=True):
    """A package seen from its root."""

    names: Mapping[str, Entry]
    head: Read
    root: str

    def full(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path

    def is_file(self, path: str) -> bool:
        entry = self.names.get(self.full(path))
        return entry is not None and entry.kind == FILE

    def is_folder(self, path: str) -> bool:
        entry = self.names.get(self.full(path))
        return entry is not None and entry.kind == DIR

    def text(self, path: str) -> str:
        """A small file as text, empty for a large one."""
        entry = self.names.get(self.full(path))
        if entry is None or entry.kind != FILE or entry.size > HEAD:
            return ""
        return self.head(self.full(path)).decode("utf-8", "replace")


def detect(names: Mapping[str, Entry], read: Read, *, name: str = "") -> tuple[Candidate, ...]:
    """The templates that fit a package, best first; none: an empty tuple. `names` are its entries by path; `read` gives
    the first 64 KiB of a file; `name` is the package's own name. Raises what `read` raises."""
    tree = _Tree(names, read, top_folder(names))
    best: dict[str, list[_Sign]] = {}
    for sign in _signs(tree, name):
        best.setdefault(sign.template, []).append(sign)
    found = [_candidate(signs, tree.root) for signs in best.values()]
    return tuple(sorted(found, key=lambda candidate: (-candidate.score, candidate.template)))


def explain_none() -> str:
    """What was looked for, for a package that nothing fits; one template a line."""
    return "nothing in it says what it is; looked for:\n" + _LOOKED_FOR


def top_folder(names: Mapping[str, Entry]) -> str:
    """The one folder that holds everything else (`app-1.2` in a release's tar), else empty; one that
    means something by its name, or is a Python package, does not count."""
    tops = {path for path in names if "/" not in path}
    only = next(iter(tops)) if len(tops) == 1 else ""
    if not only or names[only].kind != DIR or only in _MARKS or f"{only}/__init__.py" in names:
        return ""
    return only


def _candidate(signs: list[_Sign], root: str) -> Candidate:
    first = max(signs, key=lambda sign: sign.score)
    main = first.main or next((sign.main for sign in signs if sign.main), "")
    reason = "; ".join(sign.reason for sign in sorted(signs, key=lambda sign: -sign.score)[:3])
    machine = first.architecture or next((sign.architecture for sign in signs if sign.architecture), "")
    return Candidate(first.template, f"{first.template}: {reason}", first.score, root, main, machine)


def _signs(tree: _Tree, name: str) -> Iterator[_Sign]:
    yield from _java(tree, name)
    yield from _php(tree)
    yield from _python(tree)
    if tree.is_file("package.json"):
        yield _Sign("nodejs", 70, "package.json in the package")
    if tree.is_file("index.html"):
        yield _Sign("static", 30, "index.html in the package")
    yield from _raw(tree)


def _java(tree: _Tree, name: str) -> Iterator[_Sign]:
    if tree.is_file("WEB-INF/web.xml"):
        yield _Sign("tomcat", 95, "WEB-INF/web.xml in the archive")
    elif tree.is_folder("WEB-INF"):
        yield _Sign("tomcat", 90, "WEB-INF/ in the archive")
    elif name.lower().endswith(".war"):
        yield _Sign("tomcat", 85, "its name ends in .war")
    manifest = tree.text("META-INF/MANIFEST.MF").replace("\r\n", "\n").replace("\n ", "")
    if found := _MAIN_CLASS.search(manifest):
        yield _Sign("jar", 80, f"META-INF/MANIFEST.MF has Main-Class {found[1][:200]}", found[1])


def _php(tree: _Tree) -> Iterator[_Sign]:
    if tree.is_folder("htdocs"):
        yield _Sign("php", 76, "htdocs/ in the package")
    if tree.is_file("composer.json"):
        yield _Sign("php", 75, "composer.json in the package")
    if tree.is_file("index.php"):
        yield _Sign("php", 65, "index.php in the package")


def _python(tree: _Tree) -> Iterator[_Sign]:
    for path in ("requirements.txt", "pip_requirements.txt", "pyproject.toml"):
        if tree.is_file(path):
            yield _Sign("python", 72, f"{path} in the package")
    for path in _modules(tree):
        found = _CALLABLE.search(tree.text(path))
        if found is None and path.rpartition("/")[2] not in _NAMED:
            continue
        module = path.removesuffix(".py").replace("/", ".")
        called = (found["made"] or found["written"]) if found else ""
        what = f"{path} with {called}" if called else path
        yield _Sign("python", 68 if found else 60, f"{what} in the package", f"{module}:{called}" if called else "")


def _modules(tree: _Tree) -> Iterator[str]:
    """Modules that may hold the application: at the root, or (as Django has them) one folder below."""
    yield from (path for path in _MODULES if tree.is_file(path))
    for folder in _folders(tree):
        yield from (f"{folder}/{path}" for path in _NAMED if tree.is_file(f"{folder}/{path}"))


def _folders(tree: _Tree) -> list[str]:
    return sorted(path for path, entry in _level(tree, "") if entry.kind == DIR)


def _level(tree: _Tree, folder: str) -> Iterator[tuple[str, Entry]]:
    """(path below the root, entry) of everything that lies right in a folder."""
    start = tree.full(f"{folder}/" if folder else "")
    for path, entry in tree.names.items():
        if path.startswith(start) and "/" not in path[len(start) :]:
            yield path[len(tree.full("")) :], entry


def _raw(tree: _Tree) -> Iterator[_Sign]:
    if tree.is_file("control"):
        yield _Sign("raw", 50, "a file called control at the root", "control")
    for path in _programs(tree):
        machine = elf.architecture(tree.head(tree.full(path)))
        if machine:
            yield _Sign("raw", 45, f"{path} is a program for {machine}", path, machine)


def _programs(tree: _Tree) -> list[str]:
    """Files at the root and in bin/ that may be programs; libraries (`.so`) are none."""
    found = [
        path
        for folder in ("", "bin")
        for path, entry in sorted(_level(tree, folder))
        if entry.kind == FILE and entry.size >= elf.HEAD and not _LIBRARY.search(path)
    ]
    return found[:_MAX_PROGRAMS]
