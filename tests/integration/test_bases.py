"""The bases of `kiln package`: baked from Debian's packages, each example and sample started and asked over HTTP."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kiln.sources.package import bases, templates
from tests.integration.bakes import bake
from tests.integration.containers import HOST, missing, running
from tests.services import SOURCE, Authority, Kiln, free_port

PACKAGES = SOURCE / "examples" / "packages"
IDS = ("ground", "plain", "java", "tomcat", "jar", "static", "php", "python", "nodejs")
pytestmark = [pytest.mark.root, pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("bases")]

# What is asked of each example: its base, path, a part of the answer, a part of the log.
EXAMPLES = {
    "war": ("tomcat", {"/hello?name=Ada": "Hello from a servlet, Ada", "/": "6 × 7 is 42"}, "GET /hello?name=Ada"),
    "jar": ("jar", {"/": "Hello from a jar"}, "listening on"),
    "php": ("php", {"/?name=Ada": "Hello from PHP, Ada, at most 77M", "/no.php": ""}, "greeting Ada"),
    "python": ("python", {"/": "Hello from Python with bottle 0."}, '"GET / HTTP/1.1" 200'),
    "nodejs": ("nodejs", {"/": "Hello from Node"}, "GET /"),
    "static": ("static", {"/": "Hello from files", "/pictures/dot.svg": "<circle"}, "GET /pictures/dot.svg"),
    "binary": ("plain", {"/": "Hello from a static program"}, "answered"),
}
COMPILERS = {"war": ("javac", "jar"), "jar": ("javac", "jar"), "binary": ("cc",)}


@pytest.fixture(scope="module")
def baked(tmp_path_factory):
    """A command whose store has all bases."""
    if why := missing("mmdebstrap"):
        pytest.skip(why)
    kiln = Kiln(tmp_path_factory.mktemp("bases"))
    made = bake(kiln, SOURCE / "bases", seconds=400)
    assert made.results == dict.fromkeys(IDS, "built")
    assert made.warnings == ()
    return kiln


def packed(kiln: Kiln, kind: str, folder: Path) -> Path:
    """An example as its users hand it over."""
    absent = [tool for tool in COMPILERS.get(kind, ()) if shutil.which(tool) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    api = _servlet_api(kiln, folder) if kind == "war" else folder
    environment = {**kiln.environment(), "SERVLET_API": str(api)}
    subprocess.run([PACKAGES / "pack", kind, folder / "out"], check=True, env=environment, timeout=60)
    return next((folder / "out").iterdir())


def _servlet_api(kiln: Kiln, folder: Path) -> Path:
    """The jar that servlets are compiled with, out of the base that they will run on."""
    (folder / "api").mkdir()
    text = "FROM scratch\nCOPY --from=kiln/base-tomcat:1 /usr/share/java/tomcat10-servlet-api.jar /api.jar\n"
    (folder / "api" / "Dockerfile").write_text(text)
    kiln.build(folder / "api", "-o", f"type=local,dest={folder}/classes")
    return folder / "classes" / "api.jar"


def tree_of(package: Path, folder: Path) -> Path:
    """A package as a folder, as it is put into an image: archives are unpacked, but for jars."""
    if package.suffix == ".gz":
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-xzf", package, "-C", folder], check=True)
    elif package.suffix == ".war":
        with zipfile.ZipFile(package) as archive:
            archive.extractall(folder)
    else:
        folder.mkdir()
        shutil.copy(package, folder)
    return folder


def written(files: dict[str, bytes], folder: Path) -> Path:
    """A folder with these files; `control` may be executed."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def wheels_of(requirements: Path) -> Path:
    """A pip.conf for builds that have no way to PyPI of their own: this machine's pip fetches what is required."""
    place = requirements.with_name("wheels")
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", place, "-r", requirements]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        pytest.skip(f"PyPI cannot be reached: {done.stderr[-300:]}")
    config = requirements.parent.with_name("pip.conf")
    config.write_text("[global]\nno-index = true\nfind-links = /opt/app/wheels\n")
    return config


def image_of(kiln: Kiln, name: str, tree: Path, port: int, *, main: str = "", flags: Sequence[object] = ()) -> Path:
    """The OCI archive of a package on a base."""
    base = bases.load()[name]
    files = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    values = base.values(app="hello", owner="", main=main) | {"port": str(port)}
    dockerfile = tree.with_name("Dockerfile")
    dockerfile.write_text(templates.render(templates.find(base.template), values, files))
    archive = tree.with_name("image.tar")
    ended = kiln.build(tree, "-f", dockerfile, "-o", f"type=oci,dest={archive}", *flags, seconds=200)
    assert "warning" not in ended.err.lower(), ended.err
    return archive


@pytest.mark.parametrize("kind", EXAMPLES)
def test_examples_answer_log_and_end(baked, tmp_path, kind):
    base, questions, logged = EXAMPLES[kind]
    tree, port = tree_of(packed(baked, kind, tmp_path), tmp_path / "tree"), free_port()
    flags = ("--secret", f"id=pip.conf,src={wheels_of(tree / 'requirements.txt')}") if kind == "python" else ()
    with running(image_of(baked, base, tree, port, flags=flags), tmp_path, port) as container:
        for path, answer in questions.items():
            status, body = container.get(path)
            assert (status, answer in body) == (200 if answer else 404, True), body
        status = container.runc("exec", container.name, "/opt/bin/control", "status")
        assert container.end() < 10
    assert logged in container.log
    assert container.process.returncode in (0, 143)
    assert status.stdout == (f"listening on port {port}\n" if kind != "binary" else "not started\n")


@pytest.mark.parametrize("name", bases.load())
def test_samples_start_on_a_root_that_cannot_be_written(baked, tmp_path, name):
    base, port = bases.load()[name], free_port()
    tree = written(bases.check_package(base.template), tmp_path / "tree")
    with running(image_of(baked, name, tree, port), tmp_path, port, sealed=True) as container:
        status, body = container.get()
        assert status == 200 and "ok" in body
        # The program's user, which is not root, may end it as well.
        assert container.runc("exec", container.name, "id", "-u").stdout == "10001\n"
        assert container.runc("exec", container.name, "/opt/bin/control", "stop").returncode == 0
        container.process.wait(10)


def test_a_control_of_the_package_wins(baked, tmp_path):
    """Also where it lost the right to be executed, and it is not served as a file of the site."""
    port, script = free_port(), b'#!/bin/sh\necho mine, $*\nexec /opt/bin/control "$@"\n'
    tree = written(bases.check_package("static") | {"control": script}, tmp_path / "tree")
    with running(image_of(baked, "static", tree, port), tmp_path, port) as container:
        assert container.get()[0] == 200
        assert container.get("/control")[0] == 404
        container.end()
    assert container.log.startswith(f"mine, start {port}\n")


FRONT = b"""<?php
require __DIR__ . '/../vendor/autoload.php';
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/' || str_starts_with($path, '/orders/')) {
    echo greeting(), ' at ', $path, ' asked for ', $_GET['n'] ?? 'nothing';
} else {
    http_response_code(404);
}
"""
FRAMEWORK = {
    "composer.json": b'{"name": "a/shop"}', ".env": b"SECRET=1", "artisan": b"", "config/app.php": b"<?php return [];",
    "vendor/autoload.php": b"<?php function greeting() { return 'front'; }", "routes/web.php": b"<?php echo 'inside';",
}  # fmt: skip


@pytest.mark.parametrize("folder", ["public", "web"])
def test_a_php_framework_gives_out_its_web_folder_alone(baked, tmp_path, folder):
    """Made and started by the command that users type; the requests are those that scanners of the web send."""
    site = {f"{folder}/index.php": FRONT, f"{folder}/css/a.css": b"a {}", f"{folder}/.htaccess": b"x"}
    tree, port = written(FRAMEWORK | site, tmp_path / "tree"), free_port()
    text = baked.run("package", tree, "--app", "shop", "--version", "1", "--port", port, "--dry-run").out
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(text.partition("# Dockerfile\n")[2].rpartition("\nkiln build")[0])
    baked.build(tree, "-f", dockerfile, "-o", f"type=oci,dest={tmp_path}/image.tar")
    with running(tmp_path / "image.tar", tmp_path, port) as container:
        assert container.get("/?n=3") == (200, "front at / asked for 3")
        assert container.get("/orders/7?n=4") == (200, "front at /orders/7 asked for 4")
        assert container.get("/css/a.css") == (200, "a {}")
        for path in ("/composer.json", "/.env", "/artisan", "/vendor/autoload.php", "/routes/web.php", "/../composer.json",
                     f"/{folder}/index.php", "/css/..%2f..%2fcomposer.json", "/.htaccess"):  # fmt: skip
            status, body = container.get(path)
            assert (status, "inside" in body, "a/shop" in body) == (
                404 if ".." not in path else status,
                False,
                False,
            ), path
        assert container.end() < 10


def test_a_php_package_that_is_all_web_root_keeps_its_dependencies_list(baked, tmp_path):
    tree, port = written({"index.php": b"<?php echo 'ok';", "composer.json": b"{}"}, tmp_path / "tree"), free_port()
    with running(image_of(baked, "php", tree, port), tmp_path, port) as container:
        assert container.get() == (200, "ok")
        assert container.get("/composer.json")[0] == 404


def test_an_asgi_application(baked, tmp_path):
    source = b"""async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"asynchronous"})
"""
    port, tree = free_port(), written({"shop/web.py": source}, tmp_path / "tree")
    with running(image_of(baked, "python", tree, port, main="shop.web:application"), tmp_path, port) as container:
        assert container.get() == (200, "asynchronous")
        assert container.end() < 10


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("plain", {"a.txt": b"", "b.txt": b""}, "set APP_PROGRAM"),
        ("jar", {"a.jar": b"", "b.jar": b""}, "2 jars, not one"),
        ("python", {"notes.txt": b""}, "set APP_MODULE"),
        ("nodejs", {"notes.txt": b""}, "package.json names neither"),
    ],
)
def test_what_cannot_be_started_says_what_to_do(baked, tmp_path, name, files, said):
    port = free_port()
    archive = image_of(baked, name, written(files, tmp_path / "tree"), port)
    with running(archive, tmp_path, port) as container:
        log, _ = container.process.communicate(timeout=30)
    assert (container.process.returncode, said in log) == (66, True), log


@pytest.mark.parametrize("trusted", [True, False])
def test_an_index_with_certificates_of_ones_own(baked, tmp_path, test_authority, trusted):
    wheel = "tiny-1.0-py3-none-any.whl"
    (tmp_path / "index" / "simple" / "tiny").mkdir(parents=True)
    (tmp_path / "index" / "simple" / "tiny" / "index.html").write_text(f'<a href="/{wheel}">{wheel}</a>')
    with zipfile.ZipFile(tmp_path / "index" / wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    tree = written({"requirements.txt": b"tiny\n", "app.py": f"app = {trusted}\n".encode()}, tmp_path / "tree")
    with https(tmp_path / "index", test_authority) as port:
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = https://{HOST}:{port}/simple\nretries = 0\n")
        words = ["package", tree, "--app", "tiny", "--version", "1", "--force", "--progress", "plain"]
        words += ["--secret", f"id=pip.conf,src={tmp_path}/pip.conf"]
        words += ["--secret", f"id=ca.crt,src={test_authority.ca}"] if trusted else []
        ended = baked.run(*words, code=0 if trusted else 1, seconds=100)
    assert ("Successfully installed tiny-1.0" if trusted else "CERTIFICATE_VERIFY_FAILED") in ended.text


@contextlib.contextmanager
def https(folder: Path, authority: Authority) -> Iterator[int]:
    """Serves a folder with a certificate; gives the port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((HOST, 0), functools.partial(Quiet, directory=folder))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate, authority.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_failing_requirement_fails_the_build(baked, tmp_path):
    tree = written({"requirements.txt": b"./no-such-wheel-1-py3-none-any.whl\n"}, tmp_path / "tree")
    base = bases.load()["python"]
    text = templates.render(templates.find("python"), base.values(app="x", owner=""), {"requirements.txt"})
    (tmp_path / "Dockerfile").write_text(text)
    ended = baked.build(tree, "-f", tmp_path / "Dockerfile", code=1, seconds=100)
    assert "no-such-wheel" in ended.err


def test_a_second_bake_skips_everything(baked):
    plan = json.loads(baked.run("plan", "--format", "json", SOURCE / "bases").out)
    assert {node["decision"] for node in plan["targets"]} == {"skip"}
