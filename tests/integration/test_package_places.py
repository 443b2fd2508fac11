"""Where packages come from and what is taken of them: every form gives the same layer, and the printed line does too."""

from __future__ import annotations

import io
import os
import shlex
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.integration.test_package import package, tarball, with_bases
from tests.services import Http

pytestmark = pytest.mark.integration
PAGE = b"<h1>shop</h1>\n"
LINK = {"x/index.html": PAGE, "x/start.html": "index.html"}
JUNK = {
    "__MACOSX/._x": b"j",
    "x/.DS_Store": b"j",
    "x/css/._a.css": b"j",
    "x/.git/HEAD": b"ref",
    "x/css/a.css": b"a {}\n",
}


@pytest.fixture
def packer(kiln):
    return with_bases(kiln)


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    """A folder with these files; texts are symbolic links."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return folder


def as_tar(path: Path, files: dict[str, bytes | str]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def as_zip(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            is_link = isinstance(content, str)
            info.external_attr = (stat.S_IFLNK | 0o777 if is_link else stat.S_IFREG | 0o644) << 16
            info.create_system = 3
            archive.writestr(info, content)
    return path


FORMS = {
    "s.tar": as_tar, "s.tar.gz": as_tar, "s.zip": as_zip, "folder": lambda path, files: put(path, files),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_links_of_a_package_are_in_the_image(packer, tmp_path, form):
    place = FORMS[form](tmp_path / form, LINK)
    package(packer, place)
    found = packer.files("shop:1.4.2")["opt/app/htdocs/start.html"]
    assert (found.kind, found.target) == ("l", "index.html")


@pytest.mark.parametrize("form", ["s.tar", "s.tar.gz", "s.zip"])
def test_links_of_an_archive_that_is_the_context(kiln, tmp_path, form):
    place = FORMS[form](tmp_path / form, LINK)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    kiln.run("build", "-f", tmp_path / "Dockerfile", "-t", "l:1", f"{place}#:x")
    assert kiln.files("l:1")["start.html"].target == "index.html"


def same_as_printed(packer, folder: Path, place: Path, *words: str) -> list[str]:
    """Makes the image of a package twice, by itself and as the dry run prints it; returns the printed command."""
    package(packer, place, *words)
    text = package(packer, place, *words, "--dry-run", "--force").out
    (folder / "Dockerfile").write_text(text.partition("# Dockerfile\n")[2].rpartition("\nkiln build")[0])
    line = shlex.split(text.rstrip().splitlines()[-1])
    line[line.index("-f") + 1], line[line.index("-t") + 1] = str(folder / "Dockerfile"), "same:1"
    packer.run(*line[1:])
    assert packer.manifest("same:1")["layers"] == packer.manifest("shop:1.4.2")["layers"]
    return line


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("top", ["x/", ""])
def test_the_printed_line_makes_the_same_layers(packer, tmp_path, form, top):
    files = {f"{top}{name[2:]}" if name[:2] == "x/" else name: content for name, content in (LINK | JUNK).items()}
    files |= {f"{top}.dockerignore": b"*.md\n!keep.md\n", f"{top}a.md": b"a", f"{top}keep.md": b"k"}
    (tmp_path / "made").mkdir()
    line = same_as_printed(packer, tmp_path, FORMS[form](tmp_path / "made" / form, files), "--memo", "it's mine")
    names = {path.removeprefix("opt/app/htdocs/") for path in packer.files("shop:1.4.2")}
    assert {"index.html", "start.html", "css/a.css", "keep.md"} <= names
    assert not [path for path in names if ".git" in path or "._" in path or ".DS_Store" in path or "MACOSX" in path]
    assert ("a.md" in names) == (form != "folder")
    assert "org.opencontainers.image.description=it's mine" in line
    assert (f"org.opencontainers.image.source={form}" in line) == (form != "folder")
    notes = packer.manifest("shop:1.4.2")["annotations"]
    assert {name: notes[name] for name in packer.manifest("same:1")["annotations"]} == packer.manifest("same:1")[
        "annotations"
    ]


def test_what_a_folder_ignores_is_not_looked_at(packer, tmp_path):
    folder = put(
        tmp_path / "site", {"index.html": PAGE, ".dockerignore": b"package.json\nrun\n", "package.json": b"{}"}
    )
    put(folder, {"server.js": b"", ".git/HEAD": b"ref"})
    os.mkfifo(folder / "run")
    os.mkfifo(folder / ".git" / "fsmonitor")
    text = package(packer, folder, "--dry-run").out
    assert "base      static" in text and "nodejs" not in text and "left out  .git\n" in text
    same_as_printed(packer, tmp_path, folder)


def test_hard_links_and_modes_of_a_folder(packer, tmp_path):
    folder = put(tmp_path / "site", {"index.html": PAGE, "run.sh": b"#!/bin/sh\n"})
    (folder / "b.html").hardlink_to(folder / "index.html")
    (folder / "run.sh").chmod(0o750)
    same_as_printed(packer, tmp_path, folder)


def test_the_top_folder_counts_for_every_base(packer, tmp_path):
    (packer.home / "templates").mkdir()
    (packer.home / "templates" / "own.dockerfile").write_text("FROM {{base}}\nCOPY . /srv/\n")
    packer.run("bases", "add", "own", "--image", "base", "--template", "own", "--port", 80)
    notes = tarball(tmp_path / "notes.tar.gz", {"notes.txt": b"x", "more.txt": b"y"}, top="notes-1/")
    package(packer, notes, "--base", "own")
    assert "srv/notes.txt" in packer.files("shop:1.4.2")
    package(packer, notes, "--base", "jar", "--force")
    assert "opt/app/notes.txt" in packer.files("shop:1.4.2")


def test_secrets_and_downloads_are_in_the_printed_line(packer, tmp_path):
    (tmp_path / "pip,conf").write_text("")
    data = tarball(tmp_path / "site.tar.gz", {"index.html": PAGE}, top="a/").read_bytes()
    secret = ("--secret", f'id=pip.conf,"src={tmp_path}/pip,conf"')
    with Http({"/f/site.tar.gz": (200, {}, data)}) as http:
        url = f"http://{http.host}/f/site.tar.gz?token=hidden"
        text = package(packer, url, "--allow-private", "--dry-run", *secret).out
    assert "# first download http://" in text and " as site.tar.gz\n" in text and "hidden" not in text
    line = shlex.split(text.rstrip().splitlines()[-1])
    line[line.index("-f") + 1] = str(tmp_path / "Dockerfile")
    (tmp_path / "Dockerfile").write_text(text.partition("# Dockerfile\n")[2].rpartition("\nkiln build")[0])
    assert line[-1] == "site.tar.gz#:a"
    packer.run(*line[1:-1], f"{tmp_path}/{line[-1]}")


def test_names_that_had_to_be_guessed_are_said(packer, tmp_path):
    site = as_zip(tmp_path / "s.zip", {"index.html": PAGE, "caf\xe9.html": PAGE})
    data = site.read_bytes().replace("caf\xe9".encode(), b"caf\x82X")
    site.write_bytes(data.replace(b"\x00\x08\x00\x00", b"\x00\x00\x00\x00"))
    raw = bytearray(site.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = raw.find(mark)
        while place >= 0:
            raw[place + at + 1] &= ~0x08
            place = raw.find(mark, place + 4)
    site.write_bytes(bytes(raw))
    ended = package(packer, site)
    assert "1 names are not marked as UTF-8" in ended.err
    assert "warning   1 names" in package(packer, site, "--dry-run", "--force").out


def test_a_base_without_a_registry_is_looked_for_in_the_store_alone(kiln, tmp_path):
    """Nobody is asked: whoever owns the name on Docker Hub could answer."""
    site = put(tmp_path / "site", {"index.html": PAGE})
    for words in (("package", site, "--app", "shop", "--version", "1"), ("bases", "check", "static")):
        ended = kiln.run(*words, code=1)
        assert "kiln/base-static:1) is not in the store" in ended.text and "kiln bake bases" in ended.text
        assert "pull" not in ended.text and "docker.io" not in ended.text
    text = package(kiln, site, "--dry-run").out
    assert "warning   the base static (kiln/base-static:1) is not in the store" in text


@pytest.mark.parametrize(
    ("files", "words", "says"),
    [
        ({"shop.war": b"PK"}, (), "it holds a war, shop.war"),
        ({"x/shop.war": b"PK", "x/readme": b""}, ("--base", "tomcat"), "it holds a war, x/shop.war"),
        ({"index.html": PAGE}, ("--base", "raw"), "raw is the template of plain"),
        ({"index.html": PAGE}, ("--namespace", "library.x"), "would be taken for the host"),
        ({"index.html": PAGE}, ("--registry", "reg", "--namespace", "team"), "--registry reg: a word alone"),
        ({"index.html": PAGE}, ("--checksum", "0" * 63), "is no digest"),
        ({"index.html": PAGE}, ("--checksum", "0" * 64), "not sha256:0000"),
    ],
)
def test_refusals(packer, tmp_path, files, words, says):
    place = as_zip(tmp_path / "s.zip", files)
    ended = packer.run("package", place, "--app", "shop", "--version", "1", *words, code=None)
    assert ended.code in (1, 2) and says in ended.err, ended.err


def test_a_scheme_that_is_not_fetched(packer):
    assert "ftp URLs are not fetched" in package(packer, "ftp://h/site.tgz", code=2).err


def test_quiet(packer, tmp_path):
    ended = package(packer, put(tmp_path / "site", {"index.html": PAGE}), "-q")
    assert ended.err == "" and ended.out.startswith("shop:1.4.2@sha256:")
