"""Whether what a package holds can be started on its base: refused where it cannot, warned of where it may not."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from kiln.errors import KilnError
from kiln.sources.package import jars
from kiln.sources.package.bases import Base
from kiln.sources.package.detect import Candidate
from kiln.sources.package.signs import has_application, starts_node
from kiln.sources.package.tree import Tree

# Names of the OCI image-spec (GOARCH) for those of ELF files.
_ARCHITECTURES = {"x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
_JAVAX = ("http://java.sun.com/xml/ns/j", "http://xmlns.jcp.org/xml/ns/javaee", "http://java.sun.com/dtd/web-app")
_SEARCHED = "wsgi.py, asgi.py, app.py, main.py, application.py, server.py, FOLDER/wsgi.py, FOLDER/asgi.py"


def with_program(candidate: Candidate, app: str, architecture: str) -> Candidate:
    """The candidate with the one program that is meant: the only one, or the one that is called like the application.
    Raises `KilnError` where it is not clear, or where no image of `architecture` can run it."""
    programs = candidate.programs
    if not programs or candidate.main == "control":
        return candidate
    chosen = [one for one in programs if one[0].rpartition("/")[2] == app] or list(programs)
    if len(chosen) > 1:
        raise KilnError(
            f"there are several programs in it: {', '.join(path for path, _ in chosen[:10])}",
            hint="Call the application like one of them (--app), or put a file called control at the root that starts it.",
        )
    path, machine = chosen[0]
    if not _runs(_ARCHITECTURES.get(machine, machine), architecture):
        raise KilnError(
            f"{path} is a program for {machine}, and the image is for {architecture}: it cannot start there",
            hint="Compile it for the base's platform, or build on a machine of the program's kind.",
        )
    return replace(candidate, main=path, architecture=machine)


def _runs(program: str, image: str) -> bool:
    return program == image or (program, image) == ("386", "amd64")


def warnings(tree: Tree, base: Base, candidate: Candidate) -> list[str]:
    """What is known to be missing for the image to start as it is, with what to do; without a `control` of its own."""
    found = list(_old_servlets(tree)) if base.template == "tomcat" and base.is_shipped else []
    if tree.is_file("control") or base.template not in _CHECKS:
        return found
    return found + list(_CHECKS[base.template](tree, candidate))


def _old_servlets(tree: Tree) -> Iterator[str]:
    text = tree.text("WEB-INF/web.xml")
    if any(word in text for word in _JAVAX):
        yield (
            "WEB-INF/web.xml is of Java EE (javax.servlet), and Tomcat 10 has Jakarta EE (jakarta.servlet): migrate the war,"
            " or add a base with Tomcat 9"
        )


def _python(tree: Tree, candidate: Candidate) -> Iterator[str]:
    if not candidate.main and not has_application(tree):
        yield (
            f"no WSGI or ASGI application is found ({_SEARCHED} with `application` or `app`): give the container"
            " APP_MODULE=module:name, or it does not start"
        )


def _node(tree: Tree, candidate: Candidate) -> Iterator[str]:
    if not starts_node(tree):
        yield (
            'package.json has neither a start script "node FILE" nor a main that is there, and there is no server.js, index.js'
            " or app.js: the image does not start"
        )


def _php(tree: Tree, candidate: Candidate) -> Iterator[str]:
    folder = "htdocs" if tree.is_folder("htdocs") else candidate.folder
    names = [f"{folder}/{name}" if folder else name for name in ("index.php", "index.html")]
    if not any(map(tree.is_file, names)):
        yield f"there is no {names[0]}: nothing answers at /"


def _jar(tree: Tree, candidate: Candidate) -> Iterator[str]:
    many = len(tree.files(".jar"))
    if not candidate.main and many != 1 and not jars.main_class(tree.text(jars.MANIFEST)):
        yield f"it has {many} jars at its root and no Main-Class: give the container APP_JAR=FILE, or it does not start"


def _raw(tree: Tree, candidate: Candidate) -> Iterator[str]:
    if not candidate.main and len(tree.files()) != 1:
        yield "it has no file called control and no program: give the container APP_PROGRAM=FILE, or it does not start"


_CHECKS = {"python": _python, "nodejs": _node, "php": _php, "jar": _jar, "raw": _raw}
