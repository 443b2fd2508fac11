"""Downloads: bounded, checked, taken up again where they broke, and nothing left behind where they fail."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.engine.cancel import Cancel
from kiln.errors import CancelledBuild, SourceError
from kiln.settings import Settings
from kiln.sources import transfer
from kiln.sources.fetch import download, file_name, headers
from kiln.sources.policy import Policy
from kiln.sources.transfer import safe_name, sent_name
from tests.sources.servers import redirects, reply, sends, serving

DATA = random.Random(3).randbytes(300_000)
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def fetch(tmp_path):
    """download() into a folder that has to be empty where it fails."""
    settings = Settings(home=tmp_path, docker_config=tmp_path, environment={"HOME": str(tmp_path)})

    def run(url: str, cancel: Cancel | None = None, **words) -> tuple[Path, str]:
        folder = tmp_path / "downloads"
        folder.mkdir(exist_ok=True)
        before = set(folder.iterdir())
        try:
            path, digest = download(url, folder, settings, cancel or Cancel(), **words)
        except BaseException:
            assert set(folder.iterdir()) == before
            raise
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        return path, digest

    run.settings = settings
    return run


def test_a_file(fetch):
    with serving(sends(DATA)) as server:
        path, digest = fetch(f"{server.url}/some/app.war?token=secret")
        assert (path.name, path.read_bytes(), digest) == ("app.war", DATA, DIGEST)
        assert server.asked[0].headers["accept-encoding"] == "identity"


def test_after_a_redirect_the_name_is_the_first_url_s(fetch):
    with serving(sends(DATA)) as end, serving(redirects(f"{end.url}/other")) as server:
        assert fetch(f"{server.url}/first")[0].name == "first"


def test_public_addresses_alone(fetch):
    with serving(sends()) as server:
        with pytest.raises(SourceError, match="no address of the public internet"):
            fetch(server.url, policy=Policy())
        assert not server.asked


def test_what_is_encoded_on_the_way_stays_so(fetch):
    """Nothing is decompressed behind the back of the limit."""
    with serving(sends(b"\x1f\x8bnot even gzip", Content_Encoding="gzip")) as server:
        assert fetch(server.url)[0].read_bytes() == b"\x1f\x8bnot even gzip"


def test_checksum(fetch):
    with serving(sends(DATA)) as server:
        assert fetch(server.url, checksum=DIGEST)[1] == DIGEST
        with pytest.raises(SourceError, match=f"has the digest {DIGEST}, not sha256:00") as caught:
            fetch(f"{server.url}/x?token=secret", checksum="sha256:" + "00" * 32)
        assert "secret" not in str(caught.value) and len(server.asked) == 2


@pytest.mark.parametrize("length", ["300000", ""])
def test_limit_with_and_without_a_length(fetch, length):
    with serving(sends(DATA, Content_Length=length)) as server:
        with pytest.raises(SourceError, match="larger than 299999 bytes"):
            fetch(server.url, limit=299_999)
        assert fetch(server.url, limit=300_000)[1] == DIGEST


def test_endless_content_ends_at_the_limit(fetch):
    def endless(asked, connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    with serving(endless) as server, pytest.raises(SourceError, match="larger than"):
        fetch(server.url, limit=1 << 20)


def _drip(asked, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(100000):
        connection.sendall(b"x")
        time.sleep(0.05)


def _drip_headers(asked, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for index in range(100000):
        connection.sendall(f"X-{index}: x\r\n".encode())
        time.sleep(0.05)


def _drip_to_the_end_of_the_connection(asked, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


DRIPS = [_drip, _drip_headers, _drip_to_the_end_of_the_connection]


@pytest.mark.parametrize("answer", DRIPS)
def test_slow_servers_end_with_the_time(fetch, answer):
    with serving(answer) as server:
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"longer than 0\.5 seconds"):
            fetch(server.url, timeout=0.5)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("answer", DRIPS)
def test_slow_servers_end_with_the_build(fetch, answer):
    cancel = Cancel()
    with serving(answer) as server:
        threading.Timer(0.3, cancel.cancel, ["stopped"]).start()
        began = time.monotonic()
        with pytest.raises(CancelledBuild, match="stopped"):
            fetch(server.url, cancel)
        assert time.monotonic() - began < 3


def test_silence(fetch):
    def silent(asked, connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
        time.sleep(5)

    with serving(silent) as server:
        with pytest.raises(SourceError, match="silent"):
            fetch(server.url, stall=0.1)
        assert len(server.asked) == 4


class Breaking:
    """Serves DATA, breaking off after `piece` bytes each time; knows ranges if it is told to."""

    def __init__(self, piece: int = 100_000, **marks: str) -> None:
        self.piece, self.marks, self.ranges = piece, marks, True
        self.changed = False

    def __call__(self, asked, connection):
        wanted = asked.headers.get("range", "")
        mark = asked.headers.get("if-range", "")
        start = (
            int(wanted.removeprefix("bytes=").rstrip("-"))
            if wanted and self.ranges and mark in self.marks.values()
            else 0
        )
        body = DATA[start:]
        lines = {"Content_Length": str(len(body)), **self.marks}
        if start:
            lines["Content_Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        reply(connection, body[: self.piece], "206 Partial Content" if start else "200 OK", **lines)


@pytest.mark.parametrize("marks", [{"ETag": '"one"'}, {"Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_broken_transfers_go_on_where_they_broke(fetch, marks):
    with serving(Breaking(**marks)) as server:
        assert fetch(server.url, checksum=DIGEST)[0].read_bytes() == DATA
        assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=100000-", "bytes=200000-"]
        assert {asked.headers.get("if-range") for asked in server.asked[1:]} == set(marks.values())


@pytest.mark.parametrize("marks", [{}, {"ETag": 'W/"weak"'}])
def test_without_a_mark_it_begins_anew(fetch, marks):
    answer = Breaking(**marks)

    def then_whole(asked, connection):
        answer(asked, connection)
        answer.piece = len(DATA)

    with serving(then_whole) as server:
        assert fetch(server.url)[1] == DIGEST
        assert [asked.headers.get("range") for asked in server.asked] == [None, None]


def test_another_file_in_between_begins_anew(fetch):
    """If-Range makes the server send all of the new file: nothing of the old one stays."""
    old = Breaking(ETag='"old"')

    def answer(asked, connection):
        if len(server.asked) == 1:
            old(asked, connection)
        else:
            reply(connection, b"new", ETag='"new"')

    with serving(answer) as server:
        assert fetch(server.url)[0].read_bytes() == b"new"


@pytest.mark.parametrize(
    "place", ["bytes 0-299999/300000", "bytes 100001-299999/300000", "bytes 100000-299999/400000", "nonsense", ""]
)
def test_a_wrong_piece_is_not_taken(fetch, place):
    def answer(asked, connection):
        if "range" in asked.headers:
            reply(connection, b"evil" * 50000, "206 Partial Content", Content_Range=place, ETag='"x"')
        elif len(server.asked) == 1:
            reply(connection, DATA[:100000], Content_Length="300000", ETag='"x"')
        else:
            reply(connection, DATA, ETag='"x"')

    with serving(answer) as server:
        assert fetch(server.url)[1] == DIGEST and len(server.asked) == 3


def test_it_gives_up(fetch):
    with serving(sends(b"short", Content_Length="1000")) as server:
        with pytest.raises(SourceError, match="cannot be fetched"):
            fetch(server.url)
        assert len(server.asked) == 4


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_busy_servers_are_asked_again(fetch, status):
    def answer(asked, connection):
        reply(connection, DATA, "200 OK" if len(server.asked) > 1 else status)

    with serving(answer) as server:
        assert fetch(server.url)[1] == DIGEST


@pytest.mark.parametrize(
    "status", ["404 Not Found", "401 Unauthorized", "500 Oops", "204 No Content", "304 Not Modified"]
)
def test_other_answers_are_errors(fetch, status):
    with serving(sends(b"", status)) as server:
        with pytest.raises(SourceError, match=f"answered {status[:3]}") as caught:
            fetch(f"{server.url}/x?token=secret")
        assert len(server.asked) == 1 and "secret" not in str(caught.value)


def test_nobody_there(fetch):
    with serving(sends()) as server:
        pass
    with pytest.raises(SourceError, match="cannot be fetched: no connection: Connection refused"):
        fetch(server.url)


NAMES = [
    ('attachment; filename="app.war"', "app.war"), ("attachment; filename*=UTF-8''%C3%BCber.jar", "über.jar"),
    ('attachment; filename="../../etc/cron.d/x"', "x"), ('attachment; filename="..\\\\..\\\\evil.exe"', "evil.exe"),
    ('attachment; filename=".."', "from-url.zip"), ("inline", "from-url.zip"), ("", "from-url.zip"),
    ('attachment; filename="a\x1b[31mb"', "a[31mb"), ("attachment; filename*=nope''%ff", "ÿ"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "name"), NAMES)
def test_names_that_servers_send(fetch, said, name):
    with serving(sends(DATA, Content_Disposition=said)) as server:
        assert fetch(f"{server.url}/from-url.zip", sent=True)[0].name == name


@given(st.text(max_size=400), st.text(max_size=400))
def test_names_are_always_safe(said, path):
    url = "http://host/" + urllib.parse.quote(path, errors="replace")
    for name in (
        sent_name({"Content-Disposition": f"attachment; filename={said}"}, url),
        safe_name(said) or "x",
        file_name(url),
    ):
        assert "/" not in name and name not in ("", ".", "..") and "\0" not in name and "\n" not in name
        assert len(name.encode()) <= 255


def test_headers(fetch):
    with serving(sends(b"", ETag='"x"')) as server:
        assert headers(server.url, fetch.settings)["ETag"] == '"x"' and server.asked[0].method == "HEAD"
    with serving(sends(b"", "404 Not Found")) as server, pytest.raises(SourceError, match="answered 404"):
        headers(server.url, fetch.settings)


def test_waits_are_short():
    assert sum(0.1 * 2**n for n in range(1, transfer._TRIES)) < 2
