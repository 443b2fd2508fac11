import base64
import json
import stat
import sys

import pytest

from kiln.errors import AuthError
from kiln.registry.credentials import DOCKER_KEY, Credential, Credentials
from tests.registry.samples import settings

HELPER = """#!{python}
import json, pathlib, sys
place = pathlib.Path({place!r})
known = json.loads(place.read_text()) if place.exists() else {{}}
(place.parent / "argv").open("a").write(" ".join(sys.argv[1:]) + "\\n")
text = sys.stdin.read()
if sys.argv[1] == "store":
    login = json.loads(text)
    known[login["ServerURL"]] = login
elif sys.argv[1] == "erase":
    known.pop(text)
elif text not in known:
    print("credentials not found in native keychain")
    sys.exit(1)
elif known[text] == "broken":
    print("keychain is locked")
    sys.exit(1)
else:
    print(json.dumps(known[text]))
place.write_text(json.dumps(known))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker"


@pytest.fixture
def helper(tmp_path):
    """Installs `docker-credential-test`; returns the file where it keeps what it was given."""
    place, program = tmp_path / "keychain.json", tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER.format(python=sys.executable, place=str(place)))
    program.chmod(0o755)
    return place


@pytest.fixture
def credentials(tmp_path):
    return Credentials(settings(tmp_path, environment={"PATH": str(tmp_path / "bin")}))


def write(folder, document):
    (folder / "config.json").write_text(json.dumps(document))


def read(folder):
    return json.loads((folder / "config.json").read_text())


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def test_nothing_there(credentials):
    assert credentials.find("reg.test") is None
    assert credentials.erase("reg.test") is False


def test_auths(folder, credentials):
    write(
        folder,
        {
            "auths": {
                "reg.test:5000": {"auth": encoded("me:a:b")},
                "https://old.test/v1/": {"auth": encoded("old:pw")},
                DOCKER_KEY: {"auth": encoded("hub:pw")},
                "id.test": {"auth": encoded("u:"), "identitytoken": "IDT"},
                "tok.test": {"registrytoken": "RT"},
                "empty.test": {},
                "quay.test/org": {"auth": encoded("no:no")},
            }
        },
    )
    assert credentials.find("reg.test:5000") == Credential("me", "a:b")
    assert credentials.find("old.test") == Credential("old", "pw")
    assert credentials.find("docker.io") == Credential("hub", "pw")
    assert credentials.find("id.test") == Credential("u", "", identity_token="IDT")
    assert credentials.find("tok.test") == Credential(registry_token="RT")
    assert [credentials.find(host) for host in ("empty.test", "reg.test", "quay.test")] == [None] * 3


def test_secrets_are_not_in_the_repr():
    text = repr(Credential("me", "SECRET", "SECRET", "SECRET"))
    assert "me" in text
    assert "SECRET" not in text


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"auths": 3}', '{"auths": {"reg.test": {"auth": "%%"}}}', '{"auths": {"reg.test": 3}}']
)
def test_bad_files_are_named(folder, credentials, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(AuthError) as caught:
        credentials.find("reg.test")
    assert caught.value.where == str(folder / "config.json")


def test_store_keeps_what_it_does_not_know(folder, credentials):
    write(
        folder, {"HttpHeaders": {"x": "y"}, "auths": {"a.test": {"auth": "QQ=="}, "https://reg.test": {"auth": "QQ=="}}}
    )
    (folder / "config.json").chmod(0o644)
    assert credentials.store("reg.test", Credential("me", "pä:ss")) == str(folder / "config.json")
    assert read(folder) == {
        "HttpHeaders": {"x": "y"},
        "auths": {"a.test": {"auth": "QQ=="}, "reg.test": {"auth": encoded("me:pä:ss")}},
    }
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
    assert credentials.find("reg.test") == Credential("me", "pä:ss")
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_store_into_nothing_and_erase(tmp_path, credentials):
    credentials.store("docker.io", Credential("me", "pw"))
    assert list(read(tmp_path / "docker")["auths"]) == [DOCKER_KEY]
    assert stat.S_IMODE((tmp_path / "docker").stat().st_mode) == 0o700
    assert credentials.erase("docker.io") is True
    assert read(tmp_path / "docker")["auths"] == {}
    assert credentials.find("docker.io") is None


def test_a_link_stays_a_link(tmp_path, folder, credentials):
    (tmp_path / "real.json").write_text("{}")
    (folder / "config.json").symlink_to(tmp_path / "real.json")
    credentials.store("reg.test", Credential("me", "pw"))
    assert (folder / "config.json").is_symlink()
    assert "reg.test" in (tmp_path / "real.json").read_text()


@pytest.mark.parametrize(
    "config", [{"credsStore": "test"}, {"credHelpers": {"reg.test": "test"}, "credsStore": "absent"}]
)
def test_helper_round(folder, tmp_path, credentials, helper, config):
    write(folder, config)
    assert credentials.find("reg.test") is None
    assert credentials.store("reg.test", Credential("me", "SECRET")) == "docker-credential-test"
    assert read(folder)["auths"] == {"reg.test": {}}
    assert credentials.find("reg.test") == Credential("me", "SECRET")
    assert "SECRET" not in (tmp_path / "argv").read_text()
    assert credentials.erase("reg.test") is True
    assert json.loads(helper.read_text()) == {}
    assert credentials.find("reg.test") is None


def test_helper_with_identity_token(folder, credentials, helper):
    write(folder, {"credsStore": "test"})
    credentials.store("reg.test", Credential(identity_token="IDT"))
    assert json.loads(helper.read_text())["reg.test"]["Username"] == "<token>"
    assert credentials.find("reg.test") == Credential(identity_token="IDT")


def test_file_where_the_helper_has_nothing(folder, credentials, helper):
    write(folder, {"credsStore": "test", "auths": {"reg.test": {"auth": encoded("me:pw")}}})
    assert credentials.find("reg.test") == Credential("me", "pw")


def test_helper_that_fails(folder, credentials, helper):
    write(folder, {"credsStore": "test"})
    helper.write_text('{"reg.test": "broken"}')
    with pytest.raises(AuthError, match="docker-credential-test get failed with code 1: keychain is locked"):
        credentials.find("reg.test")


@pytest.mark.parametrize("name", ["absent", "../bin/docker-credential-test", "a b"])
def test_helper_that_is_missing(folder, credentials, name):
    write(folder, {"credsStore": name})
    with pytest.raises(AuthError, match="is not installed") as caught:
        credentials.find("reg.test")
    assert "credsStore" in caught.value.hint


def test_helper_is_never_a_path(folder, tmp_path, credentials, monkeypatch):
    program = tmp_path / "docker-credential-x" / "evil"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '{}'\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    write(folder, {"credsStore": "x/evil"})
    with pytest.raises(AuthError, match="is not installed"):
        credentials.find("reg.test")


def test_helper_that_hangs(folder, tmp_path, credentials, helper, monkeypatch):
    monkeypatch.setattr("kiln.registry.helper.SECONDS", 0.2)
    (tmp_path / "bin" / "docker-credential-test").write_text("#!/bin/sh\nexec /bin/sleep 20\n")
    write(folder, {"credsStore": "test"})
    with pytest.raises(AuthError, match="did not end within"):
        credentials.find("reg.test")
