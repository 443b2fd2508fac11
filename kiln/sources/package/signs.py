"""The signs by which a package is known: one generator a kind of program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from msgspec import Struct

from kiln.sources.package import jars
from kiln.sources.package.tree import Tree
from kiln.store.entry import FILE
from kiln.store.package import elf

_MAX_PROGRAMS = 40
_MODULES = ("wsgi.py", "asgi.py", "app.py", "main.py", "application.py", "server.py")
_NAMED = ("wsgi.py", "asgi.py")
_CALLABLE = re.compile(
    r"^(?:(?P<made>app|application|api)\s*(?::[^=\n]+)?=\s*(?:[\w.]*(?:Flask|FastAPI|Starlette|Quart|Sanic|Bottle|Litestar|"
    r"create_app|make_app|get_wsgi_application|get_asgi_application)\s*\()"
    r"|(?:async\s+)?def\s+(?P<written>app|application)\s*\(\s*(?:environ|scope)\b)",
    re.MULTILINE,
)  # fmt: skip
# What the start script of the base looks for.
_STARTED = re.compile(r"^(?:from .* import (?:.*[ ,])?|(?:async )?def |class )?(?:application|app)\b", re.MULTILINE)
_NODE = re.compile(r"node\s+[\w./@ =-]+")
_NODE_FILES = ("server.js", "index.js", "app.js")
_PAGES = ("index.html", "index.htm")
_BUILT = ("dist", "build", "public")
_LIBRARY = re.compile(r"\.so(?:\.|$)")
_WEB_ROOTS = ("public", "web")


class Sign(Struct, frozen=True):
    """One reason for a template. `below` is the folder that a web server gives out."""

    template: str
    score: int
    reason: str
    main: str = ""
    architecture: str = ""
    below: str = ""


def signs(tree: Tree, name: str) -> Iterator[Sign]:
    """All signs of a package; `name` is its own name."""
    yield from _war(tree, name)
    yield from _jar(tree)
    yield from _php(tree)
    yield from _python(tree)
    yield from _web(tree)
    yield from _raw(tree)


def _said(tree: Tree, path: str) -> str:
    return f"{tree.full(path)} in the package"


def _war(tree: Tree, name: str) -> Iterator[Sign]:
    if tree.is_file("WEB-INF/web.xml"):
        yield Sign("tomcat", 95, f"{tree.full('WEB-INF/web.xml')} in the archive")
    elif tree.is_folder("WEB-INF"):
        yield Sign("tomcat", 90, f"{tree.full('WEB-INF/')} in the archive")
    elif name.lower().endswith(".war"):
        yield Sign("tomcat", 85, "its name ends in .war")


def _jar(tree: Tree) -> Iterator[Sign]:
    if found := jars.main_class(tree.text(jars.MANIFEST)):
        yield Sign("jar", 80, f"{tree.full(jars.MANIFEST)} has Main-Class {found[:200]}", found)
    beside = tree.files(".jar")
    started = [path for path in beside[:_MAX_PROGRAMS] if jars.main_class(jars.manifest_of(tree.bytes(path)))]
    if len(started) == 1:
        yield Sign("jar", 69, f"{tree.full(started[0])} is a jar with a Main-Class", started[0] if beside[1:] else "")


def _php(tree: Tree) -> Iterator[Sign]:
    if tree.is_folder("htdocs"):
        yield Sign("php", 78, _said(tree, "htdocs/"))
    for folder in _WEB_ROOTS:
        if tree.is_file(f"{folder}/index.php"):
            yield Sign("php", 77, _said(tree, f"{folder}/index.php"), below=folder)
    if tree.is_file("index.php"):
        yield Sign("php", 76, _said(tree, "index.php"))
    if tree.is_file("composer.json"):
        yield Sign("php", 75, _said(tree, "composer.json"))


def _python(tree: Tree) -> Iterator[Sign]:
    for path in ("requirements.txt", "pip_requirements.txt", "pyproject.toml", "setup.py"):
        if tree.is_file(path):
            yield Sign("python", 72, _said(tree, path))
    for path in modules(tree):
        found = _CALLABLE.search(tree.text(path))
        if found is None and path.rpartition("/")[2] not in _NAMED:
            continue
        module = path.removesuffix(".py").replace("/", ".")
        called = (found["made"] or found["written"]) if found else ""
        what = f"{tree.full(path)} with {called}" if called else tree.full(path)
        yield Sign("python", 68 if found else 60, f"{what} in the package", f"{module}:{called}" if called else "")


def modules(tree: Tree) -> Iterator[str]:
    """Modules that may hold the application: at the root, or (as Django has them) one folder below."""
    yield from (path for path in _MODULES if tree.is_file(path))
    for folder in tree.folders():
        yield from (f"{folder}/{path}" for path in _NAMED if tree.is_file(f"{folder}/{path}"))


def has_application(tree: Tree) -> bool:
    """Whether the start script of the Python base finds an application by itself."""
    return any(_STARTED.search(tree.text(path)) for path in modules(tree))


def _web(tree: Tree) -> Iterator[Sign]:
    """Node programs, and pages: a package.json that starts nothing is what the pages were built with."""
    pages = [(path, 30, "") for path in _PAGES if tree.is_file(path)]
    pages += [
        (f"{folder}/{path}", 28, folder) for folder in _BUILT for path in _PAGES if tree.is_file(f"{folder}/{path}")
    ]
    is_node = tree.is_file("package.json")
    starts = is_node and starts_node(tree)
    for path, score, below in pages[:1]:
        more = "; package.json starts no server" if is_node and not starts else ""
        yield Sign("static", score, _said(tree, path) + more, below=below)
    if is_node:
        yield Sign("nodejs", 70 if starts or not pages else 26, _said(tree, "package.json"))


def starts_node(tree: Tree) -> bool:
    """Whether the start script of the Node base finds a program by itself."""
    try:
        about = json.loads(tree.text("package.json") or "{}")
    except ValueError:
        return False
    about = about if isinstance(about, dict) else {}
    scripts, main = about.get("scripts"), about.get("main")
    start = str(scripts.get("start") or "") if isinstance(scripts, dict) else ""
    if _NODE.fullmatch(start.strip()):
        return True
    if isinstance(main, str) and main:
        path = main.removeprefix("./").rstrip("/")
        return any(tree.is_file(found) for found in (path, f"{path}.js", f"{path}/index.js"))
    return any(map(tree.is_file, _NODE_FILES))


def _raw(tree: Tree) -> Iterator[Sign]:
    if tree.is_file("control"):
        yield Sign("raw", 50, f"a file called {tree.full('control')} at the root", "control")
    for path in _programs(tree):
        machine = elf.architecture(tree.bytes(path))
        if machine:
            yield Sign("raw", 45, f"{tree.full(path)} is a program for {machine}", path, machine)


def _programs(tree: Tree) -> list[str]:
    """Files at the root and in bin/ that may be programs; libraries (`.so`) are none."""
    found = [
        path
        for folder in ("", "bin")
        for path, entry in tree.level(folder)
        if entry.kind == FILE and entry.size >= elf.HEAD and not _LIBRARY.search(path)
    ]
    return found[:_MAX_PROGRAMS]
