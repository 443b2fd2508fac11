"""Large layers of commands: kept as they are first, compressed beside the steps that follow where they leave the machine."""

import json
import os
import signal
import urllib.request

import pytest

from tests.services import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root"),
]

LARGE = "RUN head -c 6000000 /dev/zero > /large && echo {} >> /large\n"


def large_blobs(kiln):
    return [path.name for path in (kiln.store / "blobs" / "sha256").iterdir() if path.stat().st_size > 6_000_000]


def test_the_image_has_it_compressed(kiln, folder, registry):
    name = f"{registry.host}/large/one:1"
    place = folder("FROM base\n" + LARGE.format(1) + "RUN echo small > /small\n")
    kiln.build(place, "-t", name, "--push")
    types = [layer["mediaType"].rpartition(".")[2] for layer in kiln.manifest(name)["layers"]]
    assert types == ["tar+gzip"] * 3
    assert "large" in kiln.files(name) and kiln.damaged() == []
    again = kiln.build(place, "-t", name, "--push")
    assert "2 cached" in again.err
    wanted = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    request = urllib.request.Request(f"http://{registry.host}/v2/large/one/manifests/1", headers=wanted)
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["layers"] == kiln.manifest(name)["layers"]


def test_the_record_outlives_the_plain_form(kiln, folder):
    place = folder("FROM base\n" + LARGE.format(2))
    kiln.build(place, "-t", "x")
    layer = kiln.manifest("x:latest")["layers"][1]["digest"]
    plain = kiln.config("x:latest")["rootfs"]["diff_ids"][1]
    assert plain != layer
    (kiln.store / "blobs" / "sha256" / plain.partition(":")[2]).unlink()
    assert "1 cached" in kiln.build(place, "-t", "x").err
    assert kiln.manifest("x:latest")["layers"][1]["digest"] == layer


def test_a_layer_that_does_not_leave_the_machine_stays_plain(kiln, folder, tmp_path):
    stages = "FROM base AS work\n" + LARGE.format(3) + "FROM base\nCOPY --from=work /large /copied\n"
    kiln.build(folder(stages), "-t", "x")
    plain = large_blobs(kiln)
    assert len(plain) == 1
    # The same step in an image's own stage takes it from there.
    own = kiln.build(folder("FROM base\n" + LARGE.format(3), name="own"), "-t", "own")
    assert "1 cached" in own.err
    layer = kiln.manifest("own:latest")["layers"][1]
    assert layer["mediaType"].endswith("gzip") and layer["size"] < 100_000
    assert kiln.config("own:latest")["rootfs"]["diff_ids"][1] == f"sha256:{plain[0]}"


def test_a_shared_cache_gets_it_compressed(kiln, folder, new_kiln, tmp_path):
    stages = "FROM base AS work\n" + LARGE.format(4) + "FROM base\nCOPY --from=work /large /copied\n"
    place = folder(stages)
    kiln.build(place, "-t", "x", "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    sizes = [path.stat().st_size for path in (tmp_path / "cache" / "blobs" / "sha256").iterdir()]
    assert max(sizes) < 1_000_000
    second = new_kiln("second")
    assert "2 cached" in second.build(place, "-t", "x", "--cache-from", f"type=local,src={tmp_path}/cache").err
    assert second.manifest("x:latest")["layers"] == kiln.manifest("x:latest")["layers"]


def test_no_compression_means_none(kiln, folder):
    kiln.build(folder("FROM base\n" + LARGE.format(5)), "-t", "x", "--compression", "none")
    assert kiln.manifest("x:latest")["layers"][1]["digest"] == kiln.config("x:latest")["rootfs"]["diff_ids"][1]


def test_kill_9_while_it_is_compressed(kiln, folder):
    place = folder("FROM base\n" + LARGE.format(6).replace("/dev/zero", "/dev/urandom") + "RUN sleep 987654\n")
    process = kiln.start("build", "-t", "x", place)
    wait_for(lambda: large_blobs(kiln), 30)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert kiln.damaged() == []
    (place / "Dockerfile").write_text((place / "Dockerfile").read_text().replace("sleep 987654", "true"))
    assert "1 cached" in kiln.build(place, "-t", "x").err
    assert kiln.manifest("x:latest")["layers"][1]["mediaType"].endswith("gzip")
    assert kiln.damaged() == [] and kiln.scratch() == []
