"""`kiln package` and `kiln bases`, end to end on a small base, with a real registry."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.services import Http, ask, sha256_of

pytestmark = pytest.mark.integration
PAGE = b"<h1>shop</h1>\n"
PREFIX = "org.opencontainers.image."


def with_bases(kiln):
    """The command with the image `base` as every base."""
    for name, template, port in (("static", "static", 8080), ("plain", "raw", 8080), ("tomcat", "tomcat", 8080), ("php", "php", 80),
                                 ("python", "python", 8000), ("nodejs", "nodejs", 3000), ("jar", "jar", 8080)):  # fmt: skip
        kiln.run("bases", "add", name, "--image", "base", "--template", template, "--port", port, "--force")
    return kiln


@pytest.fixture
def packer(kiln):
    return with_bases(kiln)


def tarball(path, files, top=""):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}{name}")
            member.size, member.mode = len(content), 0o755 if name.endswith("control") else 0o644
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def package(kiln, path, *words, code=0, app="shop", version="1.4.2"):
    return kiln.run("package", path, "--app", app, "--version", version, "--progress", "plain", *words, code=code)


def files(kiln, name):
    return {path: member for layer in kiln.layers(name)[-2:] for path, member in layer.items()}


def test_a_site_in_one_folder(packer, tmp_path):
    site = tarball(tmp_path / "site.tar.gz", {"index.html": PAGE, "css/a.css": b"a {}\n"}, top="site-1.2/")
    ended = package(packer, site)
    assert ended.out.startswith("shop:1.4.2@sha256:")
    found = packer.files("shop:1.4.2")
    assert found["opt/app/htdocs/index.html"].uid == 10001 and "opt/app/htdocs/site-1.2" not in found
    config = packer.config("shop:1.4.2")["config"]
    assert config["Cmd"] == ["/opt/bin/control", "start", "8080"] and config["ExposedPorts"] == {"8080/tcp": {}}


def test_a_war_is_exploded(packer, tmp_path):
    war = zipped(
        tmp_path / "shop.war",
        {"WEB-INF/web.xml": b"<web-app/>", "index.jsp": b"<p>", "META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n"},
    )
    package(packer, war, "--port", 9090)
    assert {"opt/app/ROOT/WEB-INF/web.xml", "opt/app/ROOT/index.jsp"} <= set(packer.files("shop:1.4.2"))
    assert packer.config("shop:1.4.2")["config"]["Cmd"][-1] == "9090"


def test_dry_run_says_everything_and_does_nothing(packer, tmp_path):
    site = tarball(tmp_path / "site.tar.gz", {"index.html": PAGE, "package.json": b"{}"}, top="a/")
    ended = package(packer, site, "--dry-run", "--namespace", "team", "--registry", "127.0.0.1:1")
    assert "image     127.0.0.1:1/team/shop:1.4.2" in ended.out and "FROM base" in ended.out
    assert "package.json" in ended.out and "index.html" in ended.out
    line = ended.out.rstrip().splitlines()[-1]
    assert line.startswith("kiln build -f Dockerfile -t 127.0.0.1:1/team/shop:1.4.2 --annotation")
    assert line.endswith(f" '{site}#:a'")
    assert not [entry for entry in packer.index() if "shop" in str(entry)]


def test_pushed_with_annotations_and_not_overwritten(packer, registry, tmp_path):
    site = tarball(tmp_path / "site.tar.gz", {"index.html": PAGE})
    where = ("--registry", registry.host, "--namespace", "team", "--push", "--memo", "the first one")
    package(packer, site, *where)
    status, body = ask(
        registry.host, "GET", "/v2/team/shop/manifests/1.4.2", {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    )
    notes = json.loads(body)["annotations"]
    assert status == 200 and notes[f"{PREFIX}title"] == "shop" and notes[f"{PREFIX}version"] == "1.4.2"
    assert notes[f"{PREFIX}description"] == "the first one" and notes[f"{PREFIX}source"] == "site.tar.gz"
    assert notes[f"{PREFIX}base.name"] == "base" and notes[f"{PREFIX}base.digest"].startswith("sha256:")
    ended = package(packer, site, *where, code=1)
    assert "exists already" in ended.err and "--force" in ended.err
    package(packer, site, *where, "--force")


@pytest.mark.parametrize(
    ("app", "version", "why"),
    [("1shop", "1", "begins with a letter"), ("shop/x", "1", "begins with a letter"), ("Shop", "1", "lower case"),
     ("_shop", "1", "not a repository name"), ("shop", "1 2", "not a tag"), ("shop", "-1", "not a tag"),
     ("shop_", "1", "--app 'shop_'"), ("shop", "v1:2", "--version 'v1:2'")],
)  # fmt: skip
def test_names_are_checked_before_anything_else(packer, tmp_path, app, version, why):
    ended = packer.run("package", tmp_path / "nothing", f"--app={app}", f"--version={version}", code=2)
    assert why in ended.err


def test_nothing_fits(packer, tmp_path):
    ended = package(packer, tarball(tmp_path / "x.tar.gz", {"readme.txt": b"x"}), code=1)
    assert "cannot be told" in ended.err and "WEB-INF" in ended.err and "--base" in ended.err
    package(packer, tmp_path / "x.tar.gz", "--base", "static")


def test_a_base_that_is_not_there(packer, tmp_path):
    site = tarball(tmp_path / "site.tar.gz", {"index.html": PAGE})
    assert "Did you mean static?" in package(packer, site, "--base", "statik", code=2).err
    packer.run(
        "bases", "add", "static", "--image", "127.0.0.1:1/none:1", "--template", "static", "--port", 80, "--force"
    )
    assert "127.0.0.1:1/none:1" in package(packer, site, code=1).err


def test_a_url_with_its_checksum(packer, tmp_path):
    data = tarball(tmp_path / "site.tar.gz", {"index.html": PAGE}).read_bytes()
    with Http({"/files/site.tar.gz": (200, {}, data)}) as http:
        url = f"http://{http.host}/files/site.tar.gz?token=hidden"
        refused = package(packer, url, code=1)
        assert "127.0.0.1" in refused.err and "hidden" not in refused.text
        assert "digest" in package(packer, url, "--allow-private", "--checksum", f"sha256:{'0' * 64}", code=1).err
        ended = package(packer, url, "--allow-private", "--checksum", sha256_of(data))
        assert "hidden" not in ended.text
    assert packer.manifest("shop:1.4.2")["annotations"][f"{PREFIX}source"].endswith("/files/site.tar.gz")


def test_a_hostile_archive_leaves_nothing(packer, registry, tmp_path):
    bad = tarball(tmp_path / "bad.tar.gz", {"index.html": PAGE, "../../etc/passwd": b"x"})
    ended = package(packer, bad, "--registry", registry.host, "--namespace", "hostile", "--push", code=1)
    assert "../../etc/passwd" in ended.err
    assert ask(registry.host, "GET", "/v2/hostile/shop/tags/list")[0] == 404
    assert not list((packer.store / "tmp").glob("*/*"))


def test_a_program_alone(packer, tmp_path):
    program = tmp_path / "hello"
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("busybox is not installed")
    program.write_bytes(busybox.read_bytes())
    package(packer, program)
    assert packer.files("shop:1.4.2")["opt/app/hello"].mode & 0o777 == 0o755


def test_bases(packer, tmp_path):
    assert "127.0.0.1" not in packer.run("bases", "list").out
    assert "FROM {{base}}" in packer.run("bases", "show", "static").out
    assert (
        "already"
        in packer.run("bases", "add", "static", "--image", "x", "--template", "static", "--port", 1, code=2).err
    )
    assert (
        "template" in packer.run("bases", "add", "own", "--image", "x", "--template", "none", "--port", 1, code=2).err
    )
    assert packer.run("bases", "check", "static", "jar").out.count("ok") == 2
