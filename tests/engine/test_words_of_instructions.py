"""Ports, Go's quoting, users, times and history lines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.dockerfile.parser import parse
from kiln.dockerfile.reading import read
from kiln.engine import state as states
from kiln.engine.ports import parse_ports
from kiln.engine.quote import quote, quote_list
from kiln.engine.state import State, rfc3339, seconds_of
from kiln.engine.users import Identity, Owner, identity_of, owner_of
from kiln.errors import DockerfileError
from kiln.oci.platform import Platform


@pytest.mark.parametrize(
    ("word", "ports"),
    [
        ("80", ["80/tcp"]), ("80/udp", ["80/udp"]), ("80/TCP", ["80/tcp"]), ("8000-8002", ["8000/tcp", "8001/tcp", "8002/tcp"]),
        ("53/sctp", ["53/sctp"]), ("8080:80", ["80/tcp"]), ("127.0.0.1:8080:80/udp", ["80/udp"]), ("[::1]:1:2", ["2/tcp"]),
        ("1-2:3-4", ["3/tcp", "4/tcp"]), ("0", ["0/tcp"]), ("65535", ["65535/tcp"]),
    ],
)  # fmt: skip
def test_ports(word: str, ports: list[str]) -> None:
    assert parse_ports(word) == ports


@pytest.mark.parametrize(
    "word", ["", "/tcp", "x", "80/icmp", "9-8", "65536", "1-2-3", "host:1:2", "1-2:3-5", "80/", "-1", "1:"]
)
def test_no_ports(word: str) -> None:
    if word == "80/":
        assert parse_ports(word) == ["80/tcp"]
        return
    with pytest.raises(ValueError, match=r".+"):
        parse_ports(word)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'), ('a"b', '"a\\"b"'), ("a\\b", '"a\\\\b"'), ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        ("\x00\x1b\x7f", '"\\x00\\x1b\\x7f"'), ("é世😀", '"é世😀"'), ("\u00a0\u200b\u3000\ufeff", '"\\u00a0\\u200b\\u3000\\ufeff"'),
        ("\U000e0001", '"\\U000e0001"'), ("\udcff\udc80", '"\\xff\\x80"'), ("\ue000", '"\\ue000"'), ("\ufffd", '"\ufffd"'), ("'", "\"'\""),
        ("\u0085", '"\\u0085"'), ("\u00ad", '"\\u00ad"'), ("\U0010ffff", '"\\U0010ffff"'),
    ],
)  # fmt: skip
def test_quotes_of_go(text: str, quoted: str) -> None:
    """Results of Go's strconv.Quote."""
    assert quote(text) == quoted


def test_quoted_lists() -> None:
    assert quote_list([]) == "[]"
    assert quote_list(["/bin/sh", "-c", 'a "b"']) == '["/bin/sh" "-c" "a \\"b\\""]'


FILES = {
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\nbroken\nann:x:1000:100:Ann:/home/ann:/bin/sh\nbob:x:1001:1001\n",
    "etc/group": b"root:x:0:\nusers:x:100:bob\nwheel:x:10:ann,bob\nann2:x:5:\n",
}


@pytest.mark.parametrize(
    ("spec", "owner", "unknown"),
    [
        ("0", (0, 0), ""), ("5", (5, 5), ""), ("5:6", (5, 6), ""), ("ann", (1000, 100), ""), ("ann:wheel", (1000, 10), ""),
        ("ann:7", (1000, 7), ""), (":wheel", (0, 10), ""), ("root", (0, 0), ""), ("nobody", (0, 0), "user nobody"),
        ("5:nogroup", (5, 0), "group nogroup"), ("ann:", (1000, 0), ""), ("bob", (1001, 1001), ""),
    ],
)  # fmt: skip
def test_owners(spec: str, owner: tuple[int, int], unknown: str) -> None:
    assert owner_of(spec, FILES.get) == (Owner(*owner), unknown)


@pytest.mark.parametrize(("spec", "what"), [("ann", "user"), ("0:wheel", "group")])
def test_owner_without_files(spec: str, what: str) -> None:
    with pytest.raises(DockerfileError, match=f"unable to find {what}"):
        owner_of(spec, lambda path: None)
    assert owner_of("root:root", lambda path: None).owner == Owner(0, 0)


@pytest.mark.parametrize(
    ("spec", "identity"),
    [
        ("ann", (1000, 100, (10, 100), "/home/ann")), ("1000", (1000, 100, (10, 100), "/home/ann")), ("77", (77, 0, (0,), "/")),
        ("ann:users", (1000, 100, (100,), "/home/ann")), ("", (0, 0, (0,), "/root")), ("bob", (1001, 1001, (100, 10, 1001), "/")),
    ],
)  # fmt: skip
def test_identities(spec: str, identity: tuple[object, ...]) -> None:
    assert identity_of(spec, FILES.get) == Identity(*identity)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["nobody", "ann:nogroup", "99999999999"])
def test_no_identity(spec: str) -> None:
    with pytest.raises(DockerfileError):
        identity_of(spec, FILES.get)


def test_times() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(1700000000) == "2023-11-14T22:13:20Z"
    assert seconds_of("2023-11-14T22:13:20.123456789Z") == 1700000000
    assert seconds_of("0001-01-01T00:00:00Z") == 0
    assert seconds_of("") == seconds_of("soon") == 0


@settings(max_examples=60)
@given(st.integers(0, 253402300799))
def test_times_round_trip(seconds: int) -> None:
    assert seconds_of(rfc3339(seconds)) == seconds


def after(text: str, epoch: int | None = None) -> State:
    """The state after some instructions without files."""
    program = read(parse(f"FROM scratch\n{text}\n".encode(), "Dockerfile"))
    state = states.scratch(Platform("amd64", "linux"), epoch)
    appliers = {
        "ENV": states.apply_env, "LABEL": states.apply_label, "CMD": states.apply_command, "ENTRYPOINT": states.apply_command,
        "SHELL": states.apply_command, "HEALTHCHECK": states.apply_healthcheck, "USER": states.apply_text,
        "STOPSIGNAL": states.apply_text, "ONBUILD": states.apply_onbuild, "MAINTAINER": states.apply_maintainer,
    }  # fmt: skip
    for instruction in program.stages[0].instructions:
        if instruction.name in ("EXPOSE", "VOLUME"):
            state = states.apply_words(state, instruction, "\\")  # type: ignore[arg-type]
        else:
            state = appliers[instruction.name](state, instruction)  # type: ignore[operator]
    return state


def lines(state: State) -> list[str]:
    """The history."""
    return [line.created_by for line in state.config.history]


def test_env_keeps_its_order() -> None:
    state = after("ENV B=1 A=2\nENV C=3\nENV B=4 D=5")
    assert state.run.env == [f"PATH={states.DEFAULT_PATH}", "B=4", "A=2", "C=3", "D=5"]
    assert lines(state) == ["ENV B=1 A=2", "ENV C=3", "ENV B=4 D=5"]
    assert state.variables["B"] == "4"


def test_commands() -> None:
    state = after('CMD echo "hi"\nENTRYPOINT ["/app", "-x"]')
    assert state.run.cmd == ["/bin/sh", "-c", 'echo "hi"'] and state.run.entrypoint == ["/app", "-x"]
    assert lines(state) == ['CMD ["/bin/sh" "-c" "echo \\"hi\\""]', 'ENTRYPOINT ["/app" "-x"]']
    child = states.from_stage(state)
    assert (
        states.apply_command(child, read(parse(b"FROM x\nENTRYPOINT y", "D")).stages[0].instructions[0]).run.cmd is None
    )  # type: ignore[arg-type]
    assert after('SHELL ["sh", "-x"]\nCMD a b').run.cmd == ["sh", "-x", "a b"]


def test_other_fields() -> None:
    state = after(
        "USER ann:users\nSTOPSIGNAL SIGTERM\nEXPOSE 80 81/udp\nVOLUME /a /b\nLABEL k=v l=w\nLABEL k=x\nONBUILD RUN a\nMAINTAINER me"
    )
    run = state.run
    assert (run.user, run.stop_signal, run.on_build, state.config.author) == ("ann:users", "SIGTERM", ["RUN a"], "me")
    assert list(run.exposed_ports or ()) == ["80/tcp", "81/udp"] and list(run.volumes or ()) == ["/a", "/b"]
    assert run.labels == {"k": "x", "l": "w"}
    assert lines(state)[2:4] == ["EXPOSE [80/tcp 81/udp]", "VOLUME [/a /b]"]
    assert all(line.empty_layer and line.comment == states.COMMENT for line in state.config.history)


def test_health_checks() -> None:
    state = after("HEALTHCHECK --interval=90s --timeout=500ms --retries=3 CMD curl x")
    check = state.run.healthcheck
    assert check is not None and (check.interval, check.retries, check.test) == (90 * 10**9, 3, ["CMD-SHELL", "curl x"])
    assert lines(state) == ['HEALTHCHECK &{["CMD-SHELL" "curl x"] "1m30s" "500ms" "0s" "0s" \'\\x03\'}']


@pytest.mark.parametrize(("retries", "rune"), [(10, "'\\n'"), (7, "'\\a'"), (65, "'A'"), (39, "'\\''")])
def test_retries_as_go_quotes_them(retries: int, rune: str) -> None:
    assert lines(after(f"HEALTHCHECK --retries={retries} CMD x"))[0].endswith(f'"0s" {rune}}}')


@pytest.mark.parametrize("name", ["SIGNOTHING", "0", "-5", "TERMX"])
def test_no_signal(name: str) -> None:
    with pytest.raises(DockerfileError, match="invalid signal"):
        after(f"STOPSIGNAL {name}")


@pytest.mark.parametrize(("epoch", "created"), [(None, "1980-01-01T00:00:00Z"), (1700000000, "2023-11-14T22:13:20Z")])
def test_created(epoch: int | None, created: str) -> None:
    state = after("ENV A=1", epoch)
    assert state.image().config.created == state.config.history[0].created == created


@pytest.mark.parametrize(
    ("before", "path", "result"),
    [
        ("/", "a", "/a"),
        ("/a", "b", "/a/b"),
        ("/a", "/b", "/b"),
        ("/a", "..", "/"),
        ("/a", "/b/", "/b/"),
        ("/a/b", "../c", "/a/c"),
        ("/", "/", "/"),
    ],
)
def test_workdir(before: str, path: str, result: str) -> None:
    assert states.new_workdir(after("USER x").with_run(working_dir=before), path) == result
