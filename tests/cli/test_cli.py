"""The command line: what it prints, its exit codes, and that no odd input shows a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kiln.cli import main as entry
from kiln.cli.options import key_values, platform_list, secret_of, ssh_of
from kiln.cli.progress import bytes_text
from kiln.cli.prune import parse_bytes
from kiln.errors import UsageError
from kiln.oci.platform import Platform


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Kiln:
    """Runs `kiln` in a process of its own, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "KILN_HOME": str(home), "NO_COLOR": "1"}
        self.environment.pop("SOURCE_DATE_EPOCH", None)

    def __call__(self, *words: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> Done:
        argv = [sys.executable, "-m", "kiln", *map(str, words)]
        done = subprocess.run(
            argv, input=stdin, capture_output=True, env=self.environment, cwd=cwd, check=False, timeout=60
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err and "a fault in Kiln" not in err, err
        return Done(done.returncode, out, err)


@pytest.fixture
def kiln(tmp_path: Path) -> Kiln:
    """The command, with an empty home."""
    return Kiln(tmp_path / "home")


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Runs the entry point in this process, which is faster than a process of its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setenv("KILN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    monkeypatch.setattr(entry, "_leave", sys.exit)

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["kiln", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        out, err = capsys.readouterr()
        assert "a fault in Kiln" not in err, err
        return Done(int(ended.value.code or 0), out, err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A small context whose build needs no RUN."""
    root = tmp_path / "context"
    root.mkdir()
    (root / "Dockerfile").write_text("FROM scratch\nENV A=1\nCOPY hello /hello\nCOPY hello /dir/\n")
    (root / "hello").write_text("hello")
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Kiln:
    """A home with the image app:1, for tests that only look."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY Dockerfile /\nLABEL k=v\nCMD ["/x"]\n')
    command = Kiln(folder / "home")
    assert command("build", "-t", "app:1", "-q", folder).code == 0
    return command


def test_help() -> None:
    done = subprocess.run([sys.executable, "-m", "kiln", "--help"], capture_output=True, text=True, check=True)
    assert all(verb in done.stdout for verb in entry._VERBS) and "--home" in done.stdout


@pytest.mark.parametrize("verb", list(entry._VERBS))
def test_help_of_each_verb(verb: str) -> None:
    from click.testing import CliRunner

    done = CliRunner().invoke(entry.kiln, [verb, "--help"])
    assert done.exit_code == 0 and done.output.startswith("Usage: ") and "Options:" in done.output


def test_version(kiln: Kiln) -> None:
    from kiln import __version__

    assert __version__ in kiln("version").out and __version__ in kiln("--version").out


@pytest.mark.parametrize(("shell", "mark"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")])
def test_completion(inside: Callable[..., Done], shell: str, mark: str) -> None:
    script = inside("completion", shell).out
    assert "_KILN_COMPLETE" in script and mark in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script.encode(), check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["biuld", "."], "build"),
        (["build"], "CONTEXT"),
        (["build", ".", "--nonsense"], "--nonsense"),
        (["build", ".", "--label", "=x"], "--label =x: must be NAME=VALUE"),
        (["build", ".", "--build-context", "x"], "must be NAME=VALUE"),
        (["build", ".", "--platform", "linux/"], "not a platform"),
        (["build", ".", "--compression", "lzma"], "lzma"),
        (["build", ".", "-j", "0"], "-j"),
        (["build", ".", "--timeout", "soon"], "--timeout soon"),
        (["build", ".", "--push"], "--push needs a name"),
        (["build", ".", "-t", "UPPER"], "UPPER"),
        (["build", ".", "-t", "a@sha256:" + "0" * 64], "not a digest"),
        (["build", ".", "--secret", "src=x"], "id is missing"),
        (["build", ".", "--secret", "id=x,src=/nonexistent"], "no file /nonexistent"),
        (["build", ".", "-o", "type=odd"], "odd"),
        (["build", ".", "--cache-from", "type=odd"], "odd"),
        (["prune", "--keep", "many"], "is no size"),
        (["tag", "x"], "NEW"),
        (["rmi"], "NAMES"),
        (["completion", "tcsh"], "tcsh"),
    ],
)
def test_wrong_usage(inside: Callable[..., Done], words: list[str], message: str) -> None:
    done = inside(*words)
    assert (done.code, done.out) == (2, "") and message in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["build", "/nonexistent"], ["build", "/dev/null"], ["build", "-f", "/", "/tmp"], ["build", "\x01"], ["build", ""],
        ["inspect", "nothing"], ["inspect", ""], ["rmi", "nothing"], ["tag", "nothing", "x"], ["push", "nothing"],
        ["--home", "/dev/null", "images"], ["--home", "/proc/x", "du"], ["inspect", "sha256:zz"],
    ],
)  # fmt: skip
def test_odd_input_is_an_error(inside: Callable[..., Done], words: list[str]) -> None:
    done = inside(*words)
    assert done.code in (1, 2) and ("kiln: error:" in done.err or done.err.startswith("Usage:"))
    assert done.out == ""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"FROM",
        b"NONSENSE x",
        b"\0\0\0",
        b"FROM scratch\nCOPY missing /",
        b"FROM scratch\nRUN <<X",
        b"FROM scratch\nWORKDIR ${x",
    ],
)
def test_odd_dockerfiles(inside: Callable[..., Done], context: Path, text: bytes) -> None:
    (context / "Dockerfile").write_bytes(text)
    done = inside("build", context)
    assert done.code == 1 and "kiln: error:" in done.err


def test_bytes_that_are_no_text(kiln: Kiln, context: Path) -> None:
    (context / "Dockerfile").write_bytes(b"FROM scratch\nCOPY \xff\xfe /\n")
    for words in (["build", context], ["build", "\udcff"], ["inspect", "\udcff"], ["tag", "nothing", "\udcff"]):
        done = kiln(*words)
        assert done.code in (1, 2) and "kiln: error:" in done.err


def test_an_error_names_its_line(kiln: Kiln, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\n\nCOPY helo /\n")
    done = kiln("build", context)
    assert done.code == 1 and 'Dockerfile:3: "/helo": not found' in done.err
    assert "> COPY helo /" in done.err and "Did you mean hello?" in done.err


def test_plain_output(kiln: Kiln, context: Path) -> None:
    first = kiln("build", "--progress", "plain", "-t", "app", context)
    assert first.code == 0 and first.out == ""
    assert "#1 [stage-0 1/2] COPY hello /hello\n" in first.err and "it was not built before" in first.err
    assert "2 steps ran, 0 cached" in first.err.splitlines()[-1]
    again = kiln("build", "--progress", "plain", "-t", "app", context)
    assert "#1 cached (same inputs as an earlier build)" in again.err and "0 steps ran, 2 cached" in again.err
    (context / "hello").write_text("other")
    assert "the content of its files changed" in kiln("build", "--progress", "plain", context).err


def test_json_output(kiln: Kiln, context: Path) -> None:
    done = kiln("build", "--progress", "json", "-t", "app", context)
    found = [json.loads(line) for line in done.err.splitlines()]
    assert [event["event"] for event in found if event["event"].startswith("step")] == [
        "stepstarted",
        "stepfinished",
    ] * 2
    assert found[-1]["event"] == "buildfinished" and found[-1]["ran"] == 2
    assert any(event["event"] == "imageready" and event["digest"].startswith("sha256:") for event in found)
    failed = kiln("build", "--progress", "json", "--target", "nothing", context)
    assert failed.code == 2 and json.loads(failed.err.splitlines()[0])["error"]


def test_quiet_output_and_files(kiln: Kiln, context: Path, tmp_path: Path) -> None:
    done = kiln(
        "build", "-q", "--iidfile", tmp_path / "iid", "--metadata-file", tmp_path / "meta", "-t", "app", context
    )
    assert done.err == "" and done.out.strip() == (tmp_path / "iid").read_text()
    meta = json.loads((tmp_path / "meta").read_text())
    assert meta["containerimage.config.digest"] == done.out.strip() and "app" in meta["image.name"]


def steps(home: Path, root: Path) -> list[bool]:
    """Builds; whether each step was cached."""
    done = Kiln(home)("build", "--progress", "json", root)
    assert done.code == 0, done.err
    return [
        event.get("cached", False)
        for event in map(json.loads, done.err.splitlines())
        if event["event"] == "stepfinished"
    ]


def test_keys_do_not_depend_on_place_time_and_owner(context: Path, tmp_path: Path) -> None:
    """The same files in another folder, with other times and owners, are the same step."""
    home, other = tmp_path / "home", tmp_path / "other"
    assert steps(home, context) == [False, False]
    other.mkdir()
    for name in ("Dockerfile", "hello"):
        (other / name).write_bytes((context / name).read_bytes())
        (other / name).chmod((context / name).stat().st_mode & 0o7777)
        os.utime(other / name, (5, 5))
        if os.geteuid() == 0:
            os.chown(other / name, 77, 88)
    assert steps(home, other) == [True, True]
    (other / "hello").chmod(0o600)
    assert steps(home, other) == [False, False]
    assert steps(home, context) == [True, True]


def test_images(built: Kiln) -> None:
    head, line = built("images").out.splitlines()
    assert head.split() == ["NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"]
    assert line.split()[0] == "app:1" and "linux/" in line and "1980-01-01T00:00:00" in line
    row = json.loads(built("images", "--json").out)
    assert row["name"] == "app:1" and row["size"] > 0 and row["digest"] == built("images", "-q").out.strip()


def test_inspect(built: Kiln) -> None:
    facts = json.loads(built("inspect", "app:1").out)
    assert facts["config"]["config"]["Labels"] == {"k": "v"} and len(facts["layers"]) == 1
    assert facts["name"].endswith("app:1") and facts["layers"][0]["diffID"].startswith("sha256:")
    by_digest = json.loads(built("inspect", facts["digest"][7:19]).out)
    assert by_digest == facts
    assert json.loads(built("inspect", "--raw", "app:1").out)["layers"][0]["digest"] == facts["layers"][0]["digest"]
    assert "Did you mean app:1?" in built("inspect", "ap:1").err


def test_du(built: Kiln) -> None:
    lines = built("du").out.splitlines()
    assert lines[0].split() == ["KIND", "ITEMS", "SIZE", "FREE", "ON", "PRUNE"]
    assert lines[-1].startswith("total") and any(line.startswith("blob ") and " 3 " in line for line in lines)
    assert any("app:1" in line for line in built("du", "-v").out.splitlines())
    rows = [json.loads(line) for line in built("du", "--json").out.splitlines()]
    assert int(lines[-1].split()[1]) == len(rows)


def test_tag_rmi_prune(kiln: Kiln, context: Path) -> None:
    kiln("build", "-q", "-t", "app", context)
    assert kiln("tag", "app", "other:2", "third").code == 0
    assert len(kiln("images", "-q").out.split()) == 3
    assert kiln("rmi", "app", "third").out == "removed app:latest\nremoved third:latest\n"
    assert kiln("rmi", "other:2", "nothing").code == 1
    assert [json.loads(line)["name"] for line in kiln("images", "--json").out.splitlines()] == ["other:2"]
    assert "are left" in kiln("prune", "--keep", "10GB").out
    assert kiln("prune").code == 0 and json.loads(kiln("inspect", "other:2").out)
    kiln("rmi", "other:2")
    assert "; 0 B are left" in kiln("prune").out


def test_output_nobody_reads(kiln: Kiln, context: Path) -> None:
    kiln("build", "-q", "-t", "app", context)
    command = f"{sys.executable} -m kiln inspect app | true"
    done = subprocess.run(["bash", "-c", command], env=kiln.environment, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("10GB", 10**10),
        ("500MB", 5 * 10**8),
        ("1.5g", 15 * 10**8),
        ("3 kB", 3000),
        ("2GiB", 2 * 10**9),
        ("7b", 7),
        ("1T", 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1", "GB", "1x", "1..5", "1e9"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123456, "123 kB"), (10**9, "1.0 GB"), (5 * 10**12, "5.0 TB")],
)
def test_bytes_text(size: int, text: str) -> None:
    assert bytes_text(size) == text


def test_option_values(tmp_path: Path) -> None:
    around = {"SET": "value"}
    assert key_values("--build-arg", ["A=b=c", "SET", "UNSET", "E="], environment=around) == {
        "A": "b=c",
        "SET": "value",
        "E": "",
    }
    assert key_values("--label", ["a"]) == {"a": ""}
    assert platform_list(["linux/amd64,linux/arm64", "amd64"]) == (
        Platform("amd64", "linux"),
        Platform("arm64", "linux"),
    )
    assert (
        secret_of("id=SET", around).env,
        secret_of("id=x,env=Y", around).env,
        secret_of("type=env,id=x,src=Y", around).env,
    ) == ("SET", "Y", "Y")
    (tmp_path / "a,b").write_text("s")
    assert secret_of(f'id=x,"src={tmp_path}/a,b"', around).path == tmp_path / "a,b"
    assert [ssh_of(text) for text in ("default", "", "id=/s")] == [("default", ""), ("default", ""), ("id", "/s")]
