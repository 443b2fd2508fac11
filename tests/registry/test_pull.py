import pytest

from kiln.errors import CorruptError, NotFoundError, RegistryError
from kiln.events import Warned
from kiln.oci.image import parse_manifest
from kiln.oci.platform import Platform
from kiln.oci.reference import Reference
from kiln.registry.pull import fetch, pull, resolve
from kiln.settings import RegistryRules
from tests.registry.samples import AMD, ARM, image, index, leftovers, noise


@pytest.fixture
def app(fake):
    return Reference(fake.host, "team/app", "1")


@pytest.fixture
def offered(fake, other_blobs, app):
    """An index of two images and an attestation in the fake registry: (index, amd64, arm64, attestation)."""
    amd = image(other_blobs, b"base", b"amd")
    arm = image(other_blobs, b"base", b"arm", platform=ARM)
    note = image(other_blobs, b"note", platform=Platform("unknown", "unknown"))
    root = index(other_blobs, note, amd, arm)
    upload(fake, app.repository, other_blobs, root, app.tag)
    return root, amd, arm, note


def upload(fake, repository, blobs, root, tag=""):
    """Puts a whole tree from a store into a fake registry."""
    data = blobs.get(root.digest)
    fake.manifests[repository, root.digest] = fake.manifests[repository, tag or root.digest] = (root.media_type, data)
    parsed = parse_manifest(data, "")
    for child in getattr(parsed, "manifests", []):
        upload(fake, repository, blobs, child)
    for blob in [*getattr(parsed, "layers", []), *([parsed.config] if hasattr(parsed, "config") else [])]:
        fake.blobs[repository, blob.digest] = blobs.get(blob.digest)


def stored(blobs):
    return {f"sha256:{path.name}" for path in (blobs.root / "blobs").rglob("*") if path.is_file()}


def contents(blobs, root):
    parsed = parse_manifest(blobs.get(root.digest), "")
    return {root.digest, parsed.config.digest, *(layer.digest for layer in parsed.layers)}


def test_one_platform(client, blobs, other_blobs, app, offered):
    index_, _, arm, _ = offered
    found = pull(client, blobs, app, ARM)
    assert found == arm
    assert stored(blobs) == contents(other_blobs, arm) | {index_.digest}
    assert leftovers(blobs) == []


def test_all_platforms(client, blobs, other_blobs, app, offered):
    index_, *images = offered
    assert pull(client, blobs, app, None) == index_
    assert stored(blobs) == {index_.digest}.union(*(contents(other_blobs, one) for one in images))


def test_platform_that_is_not_there(client, blobs, app, offered):
    with pytest.raises(NotFoundError, match="no image for linux/riscv64"):
        pull(client, blobs, app, Platform("riscv64", "linux"))


def test_resolve(client, app, offered):
    index_, amd, _, _ = offered
    assert resolve(client, app, AMD) == amd
    assert resolve(client, app, None) == index_


def test_missing(client, blobs, fake):
    with pytest.raises(NotFoundError, match="does not have this image") as caught:
        pull(client, blobs, Reference(fake.host, "gone", "1"), AMD)
    assert caught.value.where == f"{fake.host}/gone:1"


def test_what_is_here_is_not_fetched(fake, client, blobs, app, offered):
    blobs.put(b"base")
    told = []
    pull(client, blobs, app, AMD, progress=lambda *line: told.append(line))
    assert fake.count("GET", "/blobs/") == 2
    before = len(fake.requests)
    pull(client, blobs, app, AMD)
    assert [seen.method for seen in fake.requests[before:]] == ["HEAD"]
    assert {digest for digest, done, total in told if done == total} >= contents(blobs, offered[1]) - {
        offered[1].digest
    }


def test_a_digest_that_is_here_needs_no_registry(fake, client, blobs, app, offered):
    root = pull(client, blobs, app, AMD)
    before = len(fake.requests)
    assert pull(client, blobs, app.with_digest(root.digest), AMD).digest == root.digest
    assert len(fake.requests) == before


def test_lazy_and_fetch(fake, client, blobs, other_blobs, app, offered):
    root = pull(client, blobs, app, AMD, lazy=True)
    manifest = parse_manifest(blobs.get(root.digest), "")
    assert stored(blobs) == {offered[0].digest, root.digest, manifest.config.digest}
    fetch(client, blobs, app, manifest.layers)
    assert contents(other_blobs, root) <= stored(blobs)


def test_wrong_bytes_leave_nothing(fake, client, blobs, other_blobs, app, offered):
    layer = parse_manifest(other_blobs.get(offered[1].digest), "").layers[1]
    fake.blobs["team/app", layer.digest] = b"xyz"
    with pytest.raises(CorruptError, match=layer.digest):
        pull(client, blobs, app, AMD)
    assert not blobs.has(layer.digest)
    assert not blobs.has(offered[1].digest)
    assert leftovers(blobs) == []


def test_one_failure_stops_the_others(fake, client, blobs, other_blobs, app):
    root = image(other_blobs, *(noise(1 << 20, seed) for seed in range(9)))
    upload(fake, "team/app", other_blobs, root, "1")
    fake.on("GET", "/blobs/", lambda h: h.error(403, "DENIED"))
    with pytest.raises(RegistryError, match="DENIED"):
        pull(client, blobs, app, AMD)
    assert fake.count("GET", "/blobs/") <= 6
    assert leftovers(blobs) == []


def mirrored(clients, fake, mirror, prefix=""):
    return clients({fake.host: RegistryRules(mirrors=(mirror + prefix,))})


def test_mirror_is_asked_first(fake, servers, clients, blobs, other_blobs, app, offered):
    mirror = servers()
    upload(mirror, "hub/team/app", other_blobs, offered[0], "1")
    assert pull(mirrored(clients, fake, mirror.host, "/hub"), blobs, app, AMD) == offered[1]
    assert fake.requests == []


def test_mirror_that_has_not_got_it(fake, servers, clients, blobs, app, offered):
    mirror, warned = servers(), []
    assert pull(mirrored(clients, fake, mirror.host), blobs, app, AMD, report=warned.append) == offered[1]
    assert warned == []
    assert mirror.count("HEAD") == 1


def test_mirror_that_fails_is_left_out(fake, servers, clients, blobs, app, offered):
    mirror, warned = servers(), []
    mirror.on("HEAD", "", lambda h: h.error(403, "DENIED"), times=99)
    assert pull(mirrored(clients, fake, mirror.host), blobs, app, AMD, report=warned.append) == offered[1]
    assert len(mirror.requests) == 1
    (event,) = warned
    assert isinstance(event, Warned)
    assert f"the mirror {mirror.host} of {fake.host} is not used" in event.message


def test_mirror_with_wrong_bytes(fake, servers, clients, blobs, other_blobs, app, offered):
    mirror, warned = servers(), []
    upload(mirror, "team/app", other_blobs, offered[0], "1")
    for key in mirror.blobs:
        mirror.blobs[key] = b"bad"
    assert pull(mirrored(clients, fake, mirror.host), blobs, app, AMD, report=warned.append) == offered[1]
    assert stored(blobs) >= contents(other_blobs, offered[1])
    assert len(warned) == 1


def test_mirror_does_not_get_the_registrys_credentials(fake, servers, clients, blobs, app, offered, tmp_path):
    from kiln.registry.credentials import Credential, Credentials
    from tests.registry.samples import settings
    from tests.registry.test_transport import want_basic

    mirror = servers()
    want_basic(mirror)
    want_basic(fake)
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-pw"))
    assert pull(mirrored(clients, fake, mirror.host), blobs, app, AMD) == offered[1]
    assert all("Authorization" not in seen.headers for seen in mirror.requests)


def test_what_only_the_mirror_had_is_not_taken_to_be_in_the_registry(
    fake, servers, clients, blobs, other_blobs, app, offered
):
    mirror = servers()
    upload(mirror, "team/app", other_blobs, offered[0], "1")
    client = mirrored(clients, fake, mirror.host)
    root = pull(client, blobs, app, AMD)
    layer = parse_manifest(blobs.get(root.digest), "").layers[0]
    assert not client.presence.has(fake.host, "team/app", layer.digest)
    assert client.presence.has(mirror.host, "team/app", layer.digest)


def test_mirror_with_a_scheme_is_explained(fake, clients, blobs, app):
    with pytest.raises(Exception, match="is not a mirror") as caught:
        pull(mirrored(clients, fake, "http://m.test"), blobs, app, AMD)
    assert "http = true" in caught.value.hint
