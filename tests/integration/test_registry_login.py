"""The client against docker-registry with htpasswd, with TLS, and with a token service."""

import json
import stat
import sys

import pytest

from kiln.errors import AuthError, RegistryError
from kiln.oci.image import parse_manifest
from kiln.oci.reference import Reference
from kiln.registry.auth import pull as pull_scope
from kiln.registry.auth import push as push_scope
from kiln.registry.credentials import Credential, Credentials
from kiln.registry.login import login
from kiln.registry.pull import pull
from kiln.registry.push import push
from kiln.settings import RegistryRules
from tests.registry.samples import AMD, QUICK, image, new_blobs, new_client, noise, settings
from tests.services import PASSWORD, USER

pytestmark = pytest.mark.integration
RIGHT = Credential(USER, PASSWORD)


@pytest.fixture
def clients(tmp_path):
    """Makes clients that are closed at the end."""
    made = []

    def make(**options):
        made.append(new_client(tmp_path, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def blobs(tmp_path):
    return new_blobs(tmp_path / "store")


@pytest.fixture
def other(tmp_path):
    return new_blobs(tmp_path / "other")


@pytest.fixture
def logged_in(tmp_path):
    """Stores the right password for a registry without asking it."""
    return lambda host, credential=RIGHT: Credentials(settings(tmp_path)).store(host, credential)


def round_trip(client, blobs, other, ref):
    root = image(blobs, noise(100_000), b"small")
    push(client, blobs, ref, root)
    assert pull(client, other, ref, AMD).digest == root.digest
    assert other.get(parse_manifest(blobs.get(root.digest), "").layers[0].digest) == noise(100_000)


def test_htpasswd(login_registry, clients, blobs, other, logged_in):
    logged_in(login_registry.host)
    round_trip(clients(), blobs, other, Reference(login_registry.host, "team/app", "1"))


def test_htpasswd_without_login(login_registry, clients, blobs):
    with pytest.raises(AuthError, match="wants a user name and a password") as caught:
        push(clients(), blobs, Reference(login_registry.host, "team/app", "1"), image(blobs, b"x"))
    assert f"kiln login {login_registry.host}" in caught.value.hint


def test_htpasswd_wrong_password(login_registry, clients, blobs, logged_in):
    logged_in(login_registry.host, Credential(USER, "SECRET-wrong"))
    with pytest.raises(AuthError, match=f"refused the user name or password of '{USER}'") as caught:
        push(clients(), blobs, Reference(login_registry.host, "team/app", "1"), image(blobs, b"x"))
    assert "SECRET" not in repr(caught.value) + caught.value.detail


def test_login_checks_before_it_stores(login_registry, tmp_path):
    made = settings(tmp_path)
    with pytest.raises(AuthError):
        login(made, login_registry.host, Credential(USER, "wrong"), backoff=QUICK)
    assert not made.docker_config.exists()
    login(made, login_registry.host, RIGHT, backoff=QUICK)
    assert stat.S_IMODE((made.docker_config / "config.json").stat().st_mode) == 0o600


def test_credential_helper(login_registry, clients, blobs, other, tmp_path):
    program = tmp_path / "bin" / "docker-credential-script"
    program.parent.mkdir()
    answer = json.dumps({"ServerURL": login_registry.host, "Username": USER, "Secret": PASSWORD})
    program.write_text(
        f"#!{sys.executable}\nimport sys\nassert sys.stdin.read() == {login_registry.host!r}\nprint({answer!r})\n"
    )
    program.chmod(0o755)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"credHelpers": {login_registry.host: "script"}}))
    client = clients(environment={"PATH": str(program.parent)})
    round_trip(client, blobs, other, Reference(login_registry.host, "helped/app", "1"))


def test_tls_with_its_ca(tls_registry, test_authority, clients, blobs, other):
    rules = {tls_registry.host: RegistryRules(ca=test_authority.ca)}
    round_trip(clients(registries=rules), blobs, other, Reference(tls_registry.host, "team/app", "1"))


def test_tls_with_an_unknown_ca(tls_registry, clients, blobs, other):
    """No rule: plain http is tried on loopback, the registry says that it speaks https, and its CA is not known."""
    with pytest.raises(
        RegistryError, match=r"certificate of .* cannot be verified: .*self-signed|local issuer"
    ) as caught:
        push(clients(), blobs, Reference(tls_registry.host, "team/app", "1"), image(blobs, b"x"))
    assert f'[registry."{tls_registry.host}"] ca =' in caught.value.hint


def test_tls_is_found_by_itself(tls_registry, test_authority, clients, blobs, other):
    client = clients(environment={"SSL_CERT_FILE": str(test_authority.ca)})
    round_trip(client, blobs, other, Reference(tls_registry.host, "found/app", "1"))


def test_token(token_registry, token_service, clients, blobs, other, logged_in):
    logged_in(token_registry.host)
    before = len(token_service.asked)
    round_trip(clients(), blobs, other, Reference(token_registry.host, "team/app", "1"))
    scopes = [question[2] for question in token_service.asked[before:]]
    assert sorted(scopes) == sorted([(pull_scope("team/app"),), (push_scope("team/app"),)])


def test_token_for_a_mount(token_registry, token_service, clients, blobs, logged_in):
    logged_in(token_registry.host)
    ref = Reference(token_registry.host, "team/base", "1")
    root = image(blobs, b"base layer")
    push(clients(), blobs, ref, root)
    layer = parse_manifest(blobs.get(root.digest), "").layers[0]
    second = Reference(token_registry.host, "team/mounted")
    assert clients().upload_blob(second, layer, lambda _: iter(()), ["team/base"]) == "mounted"
    assert token_service.asked[-1][2] == (pull_scope("team/base"), push_scope("team/mounted"))
    mounts = [
        line for line in token_registry.log().splitlines() if '"POST /v2/team/mounted/blobs/uploads/?mount=' in line
    ]
    # The first answer asks for a token; the token covers both repositories, so the second time is enough.
    assert [line.partition('HTTP/1.1" ')[2][:3] for line in mounts] == ["401", "201"]


def test_token_without_the_rights_to_the_source(token_registry, token_service, clients, blobs, logged_in, monkeypatch):
    logged_in(token_registry.host)
    push(clients(), blobs, Reference(token_registry.host, "secret/base", "1"), image(blobs, b"hidden"))
    monkeypatch.setitem(token_service.allowed, USER, {"team/": "pull,push"})
    layer = parse_manifest(blobs.get(image(blobs, b"hidden").digest), "").layers[0]
    target = Reference(token_registry.host, "team/own")
    assert (
        clients().upload_blob(target, layer, lambda offset: blobs.stream(layer.digest), ["secret/base"]) == "uploaded"
    )


def test_token_for_everybody(token_registry, clients, blobs, other, logged_in, tmp_path):
    ref = Reference(token_registry.host, "public/app", "1")
    logged_in(token_registry.host)
    root = image(blobs, b"free")
    push(clients(), blobs, ref, root)
    Credentials(settings(tmp_path)).erase(token_registry.host)
    anonymous = clients()
    assert pull(anonymous, other, ref, AMD).digest == root.digest
    with pytest.raises(AuthError) as caught:
        push(anonymous, blobs, ref, image(blobs, b"more"))
    assert "kiln login" in caught.value.hint


def test_token_with_a_wrong_password(token_registry, tmp_path):
    with pytest.raises(AuthError, match="refused the user name or password") as caught:
        login(settings(tmp_path), token_registry.host, Credential(USER, "SECRET"), backoff=QUICK)
    assert "no such user" in caught.value.detail
    assert "SECRET" not in caught.value.detail


def test_identity_token(token_registry, token_service, clients, blobs, other, logged_in):
    logged_in(token_registry.host, Credential(identity_token=token_service.refresh))
    before = len(token_service.asked)
    round_trip(clients(), blobs, other, Reference(token_registry.host, "identity/app", "1"))
    assert {question[0] for question in token_service.asked[before:]} == {"POST"}


def test_registry_token(token_registry, token_service, clients, blobs, other, logged_in):
    token = token_service.token(USER, (push_scope("fixed/app"),))
    logged_in(token_registry.host, Credential(registry_token=token))
    before = len(token_service.asked)
    round_trip(clients(), blobs, other, Reference(token_registry.host, "fixed/app", "1"))
    assert len(token_service.asked) == before
