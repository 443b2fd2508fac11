"""What is left out of packages, what cannot start on its base, what may not."""

from __future__ import annotations

import pytest

from kiln.errors import KilnError
from kiln.sources.package import bases, leftout
from kiln.sources.package.detect import Candidate
from kiln.sources.package.fitness import warnings, with_program
from kiln.sources.package.tree import Tree
from kiln.store.entry import DIR, FILE, Entry, parents

SHIPPED = bases.load()
JAVAX = b'<web-app xmlns="http://java.sun.com/xml/ns/javaee" version="3.0"/>'
JAKARTA = b'<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0"/>'


def tree(files: dict[str, bytes]) -> Tree:
    names = {above: Entry(DIR) for path in files for above in parents(path)}
    names |= {path: Entry(FILE, size=len(data)) for path, data in files.items()}
    return Tree(names, files.__getitem__, "")


@pytest.mark.parametrize(
    ("base", "files", "main", "says"),
    [
        ("python", {"requirements.txt": b"", "shop/run.py": b"app = 1\n"}, "", "APP_MODULE"),
        ("python", {"server.py": b"from shop import app\n"}, "", ""),
        ("python", {"web.py": b""}, "web:app", ""),
        ("python", {"control": b""}, "", ""),
        ("nodejs", {"package.json": b'{"main": "gone.js"}'}, "", "does not start"),
        ("nodejs", {"index.js": b""}, "", ""),
        ("php", {"composer.json": b""}, "", "there is no index.php"),
        ("php", {"htdocs/index.html": b""}, "", ""),
        ("jar", {"a.jar": b"", "b.jar": b""}, "", "APP_JAR"),
        ("jar", {"a.jar": b""}, "", ""),
        ("plain", {"a.txt": b"", "b.txt": b""}, "", "APP_PROGRAM"),
        ("tomcat", {"WEB-INF/web.xml": JAVAX}, "", "javax.servlet"),
        ("tomcat", {"WEB-INF/web.xml": JAKARTA}, "", ""),
        ("static", {"a.txt": b""}, "", ""),
    ],
)
def test_what_may_not_start_is_said_with_what_to_do(base, files, main, says):
    found = warnings(tree(files), SHIPPED[base], Candidate(SHIPPED[base].template, "", 0, main=main))
    assert len(found) == bool(says) and all(says in text for text in found)


def test_an_own_base_may_have_an_older_tomcat(tmp_path):
    file = tmp_path / "bases.toml"
    file.write_text('[base.tomcat]\nimage = "registry.example/tomcat:9"\ntemplate = "tomcat"\nport = 80\n')
    own = bases.load([file])["tomcat"]
    assert warnings(tree({"WEB-INF/web.xml": JAVAX}), own, Candidate("tomcat", "", 0)) == []


def raw(*programs: tuple[str, str], main: str = "") -> Candidate:
    return Candidate("raw", "", 45, main=main or programs[0][0], programs=programs)


@pytest.mark.parametrize(
    ("candidate", "main"),
    [
        (raw(("bin/a", "x86-64")), "bin/a"),
        (raw(("a", "x86-64"), ("bin/shop", "x86-64")), "bin/shop"),
        (raw(("old", "i386")), "old"),
        (raw(("a", "aarch64"), ("b", "aarch64"), main="control"), "control"),
        (Candidate("raw", "", 0), ""),
    ],
)
def test_the_program_that_is_meant(candidate, main):
    assert with_program(candidate, "shop", "amd64").main == main


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (raw(("a", "x86-64"), ("b", "x86-64")), "several programs in it: a, b"),
        (raw(("a", "aarch64")), "a is a program for aarch64, and the image is for amd64"),
        (raw(("a", "unknown (8)")), "cannot start there"),
    ],
)
def test_programs_that_cannot_be_started(candidate, says):
    with pytest.raises(KilnError) as refused:
        with_program(candidate, "shop", "amd64")
    assert says in refused.value.message and refused.value.hint


def test_what_is_left_out():
    paths = ["a/.git/HEAD", "x/._y", "a/.gitignore", "Thumbs.dbx", "._", "a.DS_Store"]
    assert [leftout.is_left_out(path) for path in paths] == [True, True, False, False, True, False]
    assert leftout.patterns_of(paths) == ("**/.git", "**/._*")


def test_copies_from_the_context_leave_it_out():
    text = 'FROM a\nCOPY --link \\\n  . /x\ncopy ["a", "b"]\nCOPY --from=a . /y\nRUN <<E\nCOPY . /z\nE\n'
    assert leftout.without(text, ()) == text
    assert leftout.without(text, ("**/.git",)) == text.replace("COPY --link", "COPY --exclude=**/.git --link").replace(
        "copy [", "copy --exclude=**/.git ["
    )
