"""What packages are taken for, in which order, and why."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kiln.sources.package.detect import HEAD, Candidate, detect, explain_none, lone_war, top_folder
from kiln.store.entry import DIR, FILE, Entry, parents
from kiln.store.package import elf
from kiln.store.package.package import open_package
from tests.sources.hostile import member, tarred, zipped


def program(machine: int = 62, *, bits: int = 2, order: int = 1, kind: int = 2) -> bytes:
    """The beginning of an ELF file."""
    form = "<HH" if order == 1 else ">HH"
    return b"\x7fELF" + bytes([bits, order, 1]) + bytes(9) + struct.pack(form, kind, machine) + bytes(100)


def look(files: dict[str, bytes], name: str = "") -> tuple[Candidate, ...]:
    entries: dict[str, Entry] = {}
    for path, data in files.items():
        for above in parents(path):
            entries.setdefault(above, Entry(DIR, mode=0o755))
        entries[path] = Entry(DIR) if path.endswith("/") else Entry(FILE, mode=0o644, size=len(data))

    def read(path: str) -> bytes:
        return files[path][:HEAD]

    return detect(entries, read, name=name)


MANIFEST = (
    b"Manifest-Version: 1.0\r\nMain-Class: com.example.a.very.long.name.that.is.folded.over.\r\n two.Lines\r\n\r\n"
)
VITE = b'{"scripts": {"start": "vite", "build": "vite build"}}'
NODE = b'{"scripts": {"start": "node src/server.js"}}'
JAR = zipped(
    {"META-INF/": b"", "META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\nMain-Class: Main\r\n", "Main.class": b""}
)
FLASK = b"from flask import Flask\n\napp = Flask(__name__)\n"
CASES = [
    ({"WEB-INF/web.xml": b"<web/>", "index.html": b""}, "", ["tomcat", "static"], "WEB-INF/web.xml in the archive"),
    ({"WEB-INF/lib/a.jar": b"", "META-INF/MANIFEST.MF": MANIFEST}, "", ["tomcat", "jar"], "WEB-INF/ in the archive"),
    ({"index.jsp": b""}, "Shop.WAR", ["tomcat"], "its name ends in .war"),
    ({"WEB-INF/web.xml": b"", "control": b""}, "", ["tomcat", "raw"], "WEB-INF"),
    ({"META-INF/MANIFEST.MF": MANIFEST}, "", ["jar"], "Main-Class com.example.a.very.long.name.that.is.folded.over.two.Lines"),
    ({"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n", "a.class": b""}, "", [], ""),
    ({"composer.json": b"{}", "package.json": b"{}", "index.php": b""}, "", ["php", "nodejs"], "composer.json"),
    ({"._wsgi.py": b"", ".DS_Store": b"", "notes.txt": b""}, "", [], ""),
    ({"htdocs/index.html": b"", "config/nginx.conf": b""}, "", ["php"], "htdocs/ in the package"),
    ({"htdocs/index.html": b""}, "", ["php"], "htdocs/"),
    ({"index.php": b""}, "", ["php"], "index.php"),
    ({"requirements.txt": b"flask", "control": b"", "package.json": b""}, "", ["python", "nodejs", "raw"], "requirements.txt"),
    ({"pip_requirements.txt": b""}, "", ["python"], "pip_requirements.txt"),
    ({"pyproject.toml": b""}, "", ["python"], "pyproject.toml"),
    ({"app.py": FLASK}, "", ["python"], "app.py with app"),
    ({"app.py": b"print('no callable')\n"}, "", [], ""),
    ({"app.py": b"def application(environ, start_response):\n    ...\n"}, "", ["python"], "app.py with application"),
    ({"main.py": b"async def app(scope, receive, send): ...\n"}, "", ["python"], "main.py with app"),
    ({"wsgi.py": b"import x\n", "control": b""}, "", ["python", "raw"], "wsgi.py"),
    ({"manage.py": b"", "shop/wsgi.py": b"application = get_wsgi_application()\n"}, "", ["python"], "shop/wsgi.py with application"),
    ({"package.json": b"{}", "index.html": b""}, "", ["static", "nodejs"], "package.json starts no server"),
    ({"package.json": VITE, "dist/index.html": b"", "dist/a.js": b""}, "", ["static", "nodejs"], "dist/index.html"),
    ({"package.json": NODE, "public/index.html": b""}, "", ["nodejs", "static"], "package.json"),
    ({"package.json": b"{}", "server.js": b"", "index.html": b""}, "", ["nodejs", "static"], "package.json"),
    ({"package.json": b'{"main": "./lib/run"}', "lib/run.js": b"", "index.html": b""}, "", ["nodejs", "static"], "package.json"),
    ({"package.json": b"[1]", "index.html": b""}, "", ["static", "nodejs"], "index.html"),
    ({"build/index.html": b"", "README": b""}, "", ["static"], "build/index.html"),
    ({"index.htm": b""}, "", ["static"], "index.htm"),
    ({"index.php": b"", "package.json": NODE, "requirements.txt": b""}, "", ["php", "python", "nodejs"], "index.php"),
    ({"public/index.php": b"", "composer.json": b"{}", "package.json": b"{}"}, "", ["php", "nodejs"], "public/index.php"),
    ({"setup.py": b"", "shop/x.py": b""}, "", ["python"], "setup.py"),
    ({"app.jar": JAR, "lib/x.jar": b"PK"}, "", ["jar"], "app.jar is a jar with a Main-Class"),
    ({"quarkus-run.jar": JAR, "lib/main/x.jar": b"PK", "quarkus/y": b""}, "", ["jar"], "quarkus-run.jar is a jar"),
    ({"a.jar": JAR, "b.jar": JAR}, "", [], ""),
    ({"index.html": b"", "__MACOSX/._index.html": b"", ".DS_Store": b"", "Thumbs.db": b""}, "", ["static"], "index.html"),
    ({"index.html": b""}, "", ["static"], "index.html"),
    ({"control": b"#!/bin/sh"}, "", ["raw"], "control at the root"),
    ({"server": program(), "README": b"x" * 100}, "", ["raw"], "server is a program for x86-64"),
    ({"bin/server-1.2": program(183)}, "", ["raw"], "bin/server-1.2 is a program for aarch64"),
    ({"libx.so": program(), "liby.so.1": program()}, "", [], ""),
    ({"notes.txt": b"words"}, "", [], ""),
    ({"app.py": FLASK + b"#" * HEAD}, "", [], ""),
]  # fmt: skip


@pytest.mark.parametrize(("files", "name", "templates", "reason"), CASES)
@pytest.mark.parametrize("root", ["", "app-1.2"])
def test_templates_in_order(files, name, templates, reason, root):
    files = {f"{root}/{path}" if root else path: data for path, data in files.items()}
    found = look(files, name)
    assert [candidate.template for candidate in found] == templates
    if found:
        assert found[0].reason.startswith(f"{found[0].template}: ") and reason in found[0].reason
        wanted = root or top_folder(
            {path: Entry(DIR) for path in {p.split("/")[0] for p in files if "/" in p}}
            | {p: Entry(FILE) for p in files}
        )
        assert all(candidate.root == wanted for candidate in found)


def test_what_is_started():
    assert look({"META-INF/MANIFEST.MF": MANIFEST})[0].main.endswith("over.two.Lines")
    assert look({"requirements.txt": b"", "app.py": FLASK})[0].main == "app:app"
    assert (
        look({"x/shop/wsgi.py": b"application = get_wsgi_application()", "x/y": b""})[0].main == "shop.wsgi:application"
    )
    assert look({"server": program()})[0] == Candidate(
        "raw", "raw: server is a program for x86-64", 45, "", "server", "x86-64", (("server", "x86-64"),)
    )  # fmt: skip
    assert look({"control": b"", "server": program(40, bits=1)})[0].architecture == "arm"


def test_marks_are_no_top_folder():
    for mark in ("WEB-INF", "META-INF", "htdocs"):
        assert top_folder({mark: Entry(DIR), f"{mark}/x": Entry(FILE)}) == ""
    assert top_folder({"a": Entry(FILE)}) == "" and top_folder({}) == ""
    assert top_folder({"a": Entry(DIR), "a/b": Entry(FILE)}) == "a"
    assert top_folder({"a": Entry(DIR), "a/__init__.py": Entry(FILE)}) == ""


def test_what_file_managers_leave_hides_no_top_folder():
    names = {"a": Entry(DIR), "__MACOSX": Entry(DIR), ".DS_Store": Entry(FILE), "._a": Entry(FILE), ".git": Entry(DIR)}
    assert top_folder(names) == "a" and top_folder(names | {"b": Entry(FILE)}) == ""


@pytest.mark.parametrize(
    ("files", "template", "folder"),
    [
        ({"public/index.php": b"", "composer.json": b""}, "php", "public"),
        ({"web/index.php": b"", "index.php": b""}, "php", "web"),
        ({"htdocs/index.php": b"", "public/index.php": b""}, "php", ""),
        ({"index.php": b"", "public/x.css": b""}, "php", ""),
        ({"dist/index.html": b"", "package.json": b"{}"}, "static", "dist"),
        ({"index.html": b"", "public/index.html": b""}, "static", ""),
    ],
)
def test_the_folder_of_the_web_server(files, template, folder):
    found = look({f"x/{path}": data for path, data in files.items()})[0]
    assert (found.template, found.folder, found.root) == (template, folder, "x")


def test_the_jar_that_is_started_and_the_only_war():
    assert look({"app.jar": JAR, "driver.jar": b"PK"})[0].main == "app.jar" and look({"app.jar": JAR})[0].main == ""
    entries = {"a/shop.war": Entry(FILE), "a": Entry(DIR), "__MACOSX/._shop.war": Entry(FILE)}
    assert lone_war(entries) == "a/shop.war" and lone_war(entries | {"b.war": Entry(FILE)}) == ""


def test_reasons_name_the_folder():
    assert look({"site/index.html": b"", "site/a": b""})[0].reason == "static: site/index.html in the package"


MACHINES = [
    (program(62), "x86-64"), (program(183), "aarch64"), (program(3, bits=1), "i386"), (program(40, bits=1), "arm"),
    (program(243), "riscv64"), (program(21), "ppc64le"), (program(22, order=2), "s390x"), (program(62, kind=3), "x86-64"),
    (program(21, order=2), "unknown (21)"), (program(8, bits=1, order=2), "unknown (8)"), (program(kind=1), ""), (b"", ""),
    (b"\x7fELF", ""), (program()[:19], ""), (program(bits=9), ""), (b"#!/bin/sh\n" * 5, ""),
]  # fmt: skip


@pytest.mark.parametrize(("head", "machine"), MACHINES)
def test_architectures(head, machine):
    assert elf.architecture(head) == machine


def test_explain_none_names_every_template():
    text = explain_none()
    assert all(f"{name}:" in text for name in ("tomcat", "jar", "php", "python", "nodejs", "static", "raw"))


def test_a_program_given_alone(tmp_path):
    (tmp_path / "server").write_bytes(program())
    with open_package(tmp_path / "server", tmp_path) as package:
        found = detect(package.entries, lambda path: package.head(path, HEAD))
        assert found[0].template == "raw" and found[0].main == "server" and package.entries["server"].mode == 0o755


@pytest.mark.parametrize("name", ["app.zip", "app.tar"])
def test_in_real_archives(tmp_path, name):
    files = {"app-1.2/requirements.txt": b"flask\n", "app-1.2/app.py": FLASK, "app-1.2/big": bytes(1 << 21)}
    data = zipped(files) if name.endswith("zip") else tarred(*(member(path, data) for path, data in files.items()))
    Path(tmp_path / name).write_bytes(data)
    with open_package(tmp_path / name, tmp_path) as package:
        found = detect(package.entries, lambda path: package.head(path, HEAD))
        assert (found[0].template, found[0].root, found[0].main) == ("python", "app-1.2", "app:app")
