"""`kiln build --check`: what it reads, prints and returns."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import pytest

from kiln import settings
from kiln.cli.check import check
from kiln.errors import DockerfileError, UsageError
from kiln.oci.image import Image, ImageConfig, RunConfig
from kiln.oci.platform import local
from kiln.sources.wish import Wish
from kiln.store.store import Store

DIRTY = "FROM scratch as a\nMAINTAINER x\n\nCMD a \\\n  b\nLABEL a=b\n"


@pytest.fixture
def config(tmp_path):
    return settings.read({}, home=str(tmp_path / "home"))


@pytest.fixture
def context(tmp_path):
    """Writes files into a context folder and returns the folder."""

    def write(dockerfile, **files):
        folder = tmp_path / "context"
        folder.mkdir(exist_ok=True)
        for name, text in {"Dockerfile": dockerfile, **files}.items():
            (folder / name).write_text(text)
        return str(folder)

    return write


def run(config, folder, progress="auto", **wish):
    return check(config, Wish(context=folder, **wish), {"progress": progress})


def test_a_clean_file(config, context, capsys):
    assert run(config, context("FROM scratch\nLABEL a=b\n")) == 0
    assert capsys.readouterr().out == "Check complete, no warnings found.\n"


def test_one_finding_is_one_warning(config, context, capsys):
    assert run(config, context("FROM scratch as a\n")) == 1
    assert capsys.readouterr().out.endswith("Check complete, 1 warning has been found!\n")


def test_findings_show_rule_address_place_and_marked_lines(config, context, capsys):
    assert run(config, context(DIRTY)) == 1
    blocks = capsys.readouterr().out.split("\n\n")
    assert blocks[0].splitlines() == [
        "WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
        "'as' and 'FROM' keywords' casing do not match",
        "Dockerfile:1",
        "--------------------",
        "   1 | >>> FROM scratch as a",
        "   2 |     MAINTAINER x",
        "   3 |",
        "--------------------",
    ]
    assert blocks[2].splitlines()[2:] == [
        "Dockerfile:4",
        "--------------------",
        "   3 |",
        "   4 | >>> CMD a \\",
        "   5 | >>>   b",
        "   6 |     LABEL a=b",
        "--------------------",
    ]
    assert blocks[3] == "Check complete, 3 warnings have been found!\n"


def test_json_is_one_object_a_finding(config, context, capsys):
    assert run(config, context(DIRTY), progress="json") == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["rule"] for item in found] == ["FromAsCasing", "MaintainerDeprecated", "JSONArgsRecommended"]
    assert found[2] == {
        "rule": "JSONArgsRecommended",
        "description": "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        "message": "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        "url": "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "file": "Dockerfile",
        "line": 4,
        "end": 5,
    }


def test_error_true_shows_findings_and_raises(config, context, capsys):
    with pytest.raises(DockerfileError, match="lint violation found for rules: FromAsCasing"):
        run(config, context("# check=error=true\nFROM scratch as a\n"))
    assert "WARNING: FromAsCasing" in capsys.readouterr().out


def test_what_ends_a_build_is_raised_after_the_findings(config, context, capsys):
    with pytest.raises(DockerfileError, match="empty platform value"):
        run(config, context("FROM --platform=$BULIDPLATFORM scratch\n"))
    assert "did you mean BUILDPLATFORM?" in capsys.readouterr().out


def test_a_parse_error_is_raised(config, context):
    with pytest.raises(DockerfileError, match="unknown instruction: COP"):
        run(config, context("FROM scratch\nCOP a b\n"))


def test_target_and_arguments(config, context, capsys):
    folder = context("FROM scratch AS a\nLABEL x=$foo\nFROM scratch AS b\nARG y=$bar\n")
    assert run(config, folder, target="b", args={"y": "1"}) == 0
    assert run(config, folder, target="b") == 1
    assert "$bar" in capsys.readouterr().out
    with pytest.raises(UsageError, match="could not be found"):
        run(config, folder, target="c")


def test_ignore_file_of_the_context(config, context, capsys):
    folder = context("# check=experimental=all\nFROM scratch\nCOPY a /\n", **{".dockerignore": "a\n"})
    assert run(config, folder) == 1
    assert 'Copy file "a"' in capsys.readouterr().out


def test_dockerfile_alone_and_tar_on_standard_input(config, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"FROM scratch as a\n")))
    assert run(config, "-") == 1
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(DIRTY)
        tar.addfile(member, io.BytesIO(DIRTY.encode()))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(packed.getvalue())))
    assert run(config, "-") == 1
    assert "3 warnings" in capsys.readouterr().out


def test_no_store_is_made(config, context):
    run(config, context("FROM debian:13\nLABEL a=$b\n"))
    assert not config.home.exists()


@pytest.fixture
def base_image(config):
    """`lint.test/base:1` in the store, with the variable GOPATH."""
    config.store_path.mkdir(parents=True)
    here = local()
    run_config = RunConfig(env=["GOPATH=/go", "EMPTY="])
    image = Image(ImageConfig(here.architecture, here.os, run_config, variant=here.variant), ())
    with Store(config.store_path) as store:
        store.layout.tag(["lint.test/base:1"], store.layout.put_image(image))


def test_variables_of_an_image_in_the_store_are_known(config, context, base_image, capsys):
    text = "FROM lint.test/base:1\nLABEL a=$GOPATH b=$EMPTY c=$GOPAHT\n"
    assert run(config, context(text)) == 1
    assert "'$GOPAHT' (did you mean $GOPATH?)" in capsys.readouterr().out


def test_variables_of_an_image_that_a_context_replaces_are_not(config, context, base_image):
    folder = context("FROM lint.test/base:1\nLABEL a=$nothing\n")
    assert run(config, folder) == 1
    assert run(config, folder, contexts={"lint.test/base:1": "docker-image://lint.test/other:1"}) == 0


def test_a_damaged_image_is_not_a_matter_for_checks(config, context, base_image):
    for blob in (config.store_path / "blobs" / "sha256").iterdir():
        blob.chmod(0o644)
        blob.write_bytes(b"{}")
    assert run(config, context("FROM lint.test/base:1\nLABEL a=$nothing\n")) == 0


def test_command_line(config, context):
    argv = [
        sys.executable,
        "-m",
        "kiln",
        "--home",
        str(config.home),
        "build",
        "--check",
        context("FROM scratch as a\n"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "WARNING: FromAsCasing" in done.stdout
