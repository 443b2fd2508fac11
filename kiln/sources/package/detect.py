"""What a package is, by what lies in it: the templates that fit, best first, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from kiln.sources.package.leftout import is_left_out, kept
from kiln.sources.package.signs import Sign, signs
from kiln.sources.package.tree import HEAD, Read, Tree
from kiln.store.entry import DIR, Entry

__all__ = ["HEAD", "Candidate", "Read", "detect", "explain_none", "lone_war", "top_folder"]
# Folders that mean something by their name, and so are not what a release is wrapped in.
_MARKS = ("WEB-INF", "META-INF", "htdocs", "bin", "lib", "usr", "opt", "etc")
_LOOKED_FOR = """\
tomcat: WEB-INF/, or a name that ends in .war
jar: META-INF/MANIFEST.MF with Main-Class, or one jar that has it
php: htdocs/, public/index.php, web/index.php, index.php, composer.json
python: requirements.txt, pip_requirements.txt, pyproject.toml, setup.py, wsgi.py, asgi.py, app.py with a WSGI or ASGI callable
nodejs: package.json
static: index.html, also in dist/, build/ or public/
raw: a file called control at the root, or a program (ELF) at the root or in bin/"""


class Candidate(Struct, frozen=True):
    """A template that fits. A higher `score` fits better; `root` is the folder of the package whose content is meant
    (empty: all of it); `main` is what is started, as far as it shows: a class, a jar, `module:callable`, a program's path
    below `root`; `architecture` is what a program runs on; `programs` are all that there are, with what they run on;
    `folder` is the one below `root` that a web server gives out, empty for what the template says."""

    template: str
    reason: str
    score: int
    root: str = ""
    main: str = ""
    architecture: str = ""
    programs: tuple[tuple[str, str], ...] = ()
    folder: str = ""


def detect(names: Mapping[str, Entry], read: Read, *, name: str = "", root: str | None = None) -> tuple[Candidate, ...]:
    """The templates that fit a package, best first; none: an empty tuple. `names` are its entries by path; `read` gives
    the first 64 KiB of a file; `name` is the package's own name; `root` is its top folder, if that is known. Raises what
    `read` raises."""
    names = kept(names)
    tree = Tree(names, read, top_folder(names) if root is None else root)
    best: dict[str, list[Sign]] = {}
    for sign in signs(tree, name):
        best.setdefault(sign.template, []).append(sign)
    found = [_candidate(alike, tree) for alike in best.values()]
    return tuple(sorted(found, key=lambda candidate: (-candidate.score, candidate.template)))


def explain_none() -> str:
    """What was looked for, for a package that nothing fits; one template a line."""
    return "nothing in it says what it is; looked for:\n" + _LOOKED_FOR


def top_folder(names: Mapping[str, Entry]) -> str:
    """The one folder that holds everything else (`app-1.2` in a release's tar), else empty; one that means something by
    its name, or is a Python package, does not count, nor does what is left out of images."""
    tops = {path for path in names if "/" not in path and not is_left_out(path)}
    only = next(iter(tops)) if len(tops) == 1 else ""
    if not only or names[only].kind != DIR or only in _MARKS or f"{only}/__init__.py" in names:
        return ""
    return only


def lone_war(names: Mapping[str, Entry]) -> str:
    """The path of the only war in a package that is no war itself; empty for none and for several."""
    wars = [path for path in names if path.lower().endswith(".war") and not is_left_out(path)]
    return wars[0] if len(wars) == 1 else ""


def _candidate(alike: list[Sign], tree: Tree) -> Candidate:
    first = max(alike, key=lambda sign: sign.score)
    main = first.main or next((sign.main for sign in alike if sign.main), "")
    reason = "; ".join(sign.reason for sign in sorted(alike, key=lambda sign: -sign.score)[:3])
    machine = first.architecture or next((sign.architecture for sign in alike if sign.architecture), "")
    programs = tuple((sign.main, sign.architecture) for sign in alike if sign.architecture)
    return Candidate(
        first.template, f"{first.template}: {reason}", first.score, tree.root, main, machine, programs, first.below
    )
