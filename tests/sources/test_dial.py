"""The dialer: addresses that are refused however they are written, and no second look-up that could answer otherwise."""

from __future__ import annotations

import ipaddress
import shutil
import ssl
import subprocess
import time

import pytest
import urllib3

from kiln.errors import SourceError
from kiln.settings import Settings
from kiln.sources.dial import Dialer
from kiln.sources.hops import answered, check_url
from kiln.sources.policy import Policy, embedded
from tests.sources.servers import Resolver, redirects, reply, sends, serving

PUBLIC, OWN = Policy(), Policy(private=True)
METADATA = [
    "169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "::ffff:0:169.254.169.254",
    "64:ff9b:1::a9fe:a9fe", "fd20:ce::254",
]  # fmt: skip
PRIVATE = [
    "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "100.64.0.1",
    "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9",
    "::1", "::", "fc00::1", "fd12:3456::1", "ff02::1", "fec0::1", "2001:db8::1", "2001::1", "100::1", "3fff::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808",
    "2002:7f00:1::", "2002:c0a8:101::1", "5f00::1", "4000::1",
]  # fmt: skip
ALLOWED = [
    "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808",
    "2002:808:808::1", "192.0.1.1", "223.255.255.255",
]  # fmt: skip


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text.partition("%")[0])


@pytest.mark.parametrize("text", METADATA)
def test_metadata_is_never_reached(text):
    assert "metadata" in PUBLIC.fault(_address(text)) and "metadata" in OWN.fault(_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses(text):
    assert PUBLIC.fault(_address(text)) and not OWN.fault(_address(text))


@pytest.mark.parametrize("text", ALLOWED)
def test_public_addresses(text):
    assert not PUBLIC.fault(_address(text)) and not OWN.fault(_address(text))


def test_what_python_calls_private_is_refused():
    """Python's own tables as a second opinion, over a spread of addresses."""
    for first in range(256):
        for second in (0, 16, 64, 100, 168, 254):
            address = ipaddress.IPv4Address(f"{first}.{second}.2.3")
            if not address.is_global:
                assert PUBLIC.fault(address), address
            mapped = ipaddress.IPv6Address(f"::ffff:{address}")
            assert bool(PUBLIC.fault(mapped)) == bool(PUBLIC.fault(address)), mapped
            assert embedded(mapped) == address


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path, docker_config=tmp_path, environment={"HOME": str(tmp_path)})


def get(url: str, settings: Settings, policy: Policy = PUBLIC, resolver: Resolver | None = None) -> bytes:
    dialer = Dialer(policy, settings.proxies, resolver or Resolver({}))
    try:
        with answered("GET", url, settings, dialer) as (_, response):
            return response.read()
    finally:
        dialer.close()


LITERALS = [
    "127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "0", "0.0.0.0", "[::]", "017700000001", "[::127.0.0.1]", "127.0.0.1.",
]  # fmt: skip


@pytest.mark.parametrize("host", LITERALS)
def test_loopback_in_odd_forms(settings, host):
    with serving(sends()) as server:
        with pytest.raises(SourceError):
            get(f"http://{host}:{server.port}/x", settings)
        assert not server.asked


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "0xA9FEA9FE", "[::ffff:169.254.169.254]", "0251.0376.0251.0376"]
)
def test_metadata_in_odd_forms(settings, host):
    with pytest.raises(SourceError, match="metadata"):
        get(f"http://{host}/latest", settings, OWN)


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["2606:4700::1", "::1"], ["10.0.0.1"]])
def test_by_name_and_every_address_counts(settings, answer):
    with pytest.raises(SourceError, match="it is not asked"):
        get("http://evil.example/", settings, PUBLIC, Resolver({"evil.example": [answer]}))


def test_one_lookup_and_the_connection_goes_there(settings):
    """A name that is harmless when it is checked and loopback when it is asked again: it is not asked again."""
    with serving(sends(b"inside")) as server:
        resolver = Resolver({"rebinds.example": [["192.168.255.254"], ["169.254.169.254"]]})
        dialer = Dialer(OWN, {}, resolver)
        addresses = dialer.addresses("rebinds.example", server.port)
        assert [place[4][0] for place in addresses] == ["192.168.255.254"]
        resolver = Resolver({"rebinds.example": [["127.0.0.1"], ["169.254.169.254"]]})
        assert get(f"http://rebinds.example:{server.port}/", settings, OWN, resolver) == b"inside"
        assert resolver.asked == ["rebinds.example"]
        assert server.asked[0].headers["host"] == f"rebinds.example:{server.port}"


def test_a_rebinding_name_is_refused_on_its_second_hop(settings):
    with serving(lambda asked, c: reply(c, b"", "302 Found", Location=f"http://two.example:{server.port}/b")) as server:
        resolver = Resolver({"two.example": [["127.0.0.1"], ["169.254.169.254"]]})
        with pytest.raises(SourceError, match="metadata"):
            get(f"http://two.example:{server.port}/a", settings, OWN, resolver)
        assert len(server.asked) == 1


@pytest.mark.parametrize("to", [
    "http://169.254.169.254/latest/meta-data/", "http://[::ffff:169.254.169.254]/", "//169.254.169.254/x", "http://0xa9fea9fe/",
])  # fmt: skip
def test_redirects_to_metadata(settings, to):
    with serving(redirects(to)) as server, pytest.raises(SourceError, match="metadata"):
        get(server.url, settings, OWN)


@pytest.mark.parametrize("to", ["http://[::ffff:127.0.0.1]:{}/", "http://127.1:{}/", "http://0:{}/"])
def test_redirects_to_loopback(settings, to, monkeypatch):
    """The first hop is let through as if it were public; the second is checked as any."""
    with serving(sends()) as inner, serving(redirects(to.format(inner.port))) as server:
        fault, checked = Policy.fault, []
        monkeypatch.setattr(Policy, "fault", lambda self, a: fault(self, a) if checked else checked.append(a) or "")
        with pytest.raises(SourceError, match="no address of the public internet"):
            get(f"http://first.example:{server.port}/", settings, PUBLIC, Resolver({"first.example": [["127.0.0.1"]]}))
        assert not inner.asked


def test_loops_of_redirects_end(settings):
    with serving(redirects("/again")) as server:
        with pytest.raises(SourceError, match="more than 10 redirects"):
            get(server.url, settings, OWN)
        assert len(server.asked) == 11


def test_an_endless_answer_to_a_redirect_is_not_read(settings):
    with serving(sends(b"arrived")) as end:

        def endless(asked, connection):
            connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {end.url}\r\n\r\n".encode())
            while True:
                connection.sendall(bytes(65536))

        with serving(endless) as server:
            began = time.monotonic()
            assert get(server.url, settings, OWN) == b"arrived" and time.monotonic() - began < 3


@pytest.mark.parametrize(
    "to",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "gopher://host/",
        "javascript:x",
        "http://user:word@host/",
        "http://[x",
        "http://a b/",
    ],
)
def test_redirects_to_what_is_no_http_url(settings, to):
    with serving(redirects(to)) as server, pytest.raises(SourceError) as caught:
        get(server.url, settings, OWN)
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize("url", [
    "ftp://host/x", "file:///etc/passwd", "http:///x", "http://", "//host/x", "http://host:99999/", "http://host:0/", "http://[::1/",
    "http://host/a\nb", "http://host/a b", "http://host\\@other/", "http://user@host/", "http://user:word@host/", "", "x",
])  # fmt: skip
def test_urls_that_are_refused(url):
    with pytest.raises(SourceError) as caught:
        check_url(url)
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize("host", ["x" * 300, "a..b", "xn--", "①②⑦.⓪.⓪.①", ".", "-"])
def test_hosts_that_are_none(settings, host):
    with pytest.raises((SourceError, urllib3.exceptions.HTTPError)):
        get(f"http://{host}/", settings)


NETRC = "machine one.example login me password word\ndefault login any password other\n"


def test_netrc_for_its_host_alone(settings, tmp_path):
    (tmp_path / ".netrc").write_text(NETRC)
    policy = Policy(private=True, netrc=True)
    resolver = Resolver({name: [["127.0.0.1"]] for name in ("one.example", "two.example", "default")})
    with serving(sends()) as end:
        with serving(redirects(f"http://two.example:{end.port}/")) as server:
            get(f"http://one.example:{server.port}/", settings, policy, resolver)
            assert server.asked[0].headers["authorization"] == "Basic bWU6d29yZA=="
            assert "authorization" not in end.asked[0].headers
        get(f"http://two.example:{end.port}/", settings, policy, resolver)
        assert "authorization" not in end.asked[1].headers
        get(f"http://one.example:{end.port}/", settings, OWN, resolver)
        assert "authorization" not in end.asked[2].headers
        get(f"http://default:{end.port}/", settings, policy, resolver)
        assert "authorization" not in end.asked.pop().headers
        with serving(redirects(f"http://one.example:{end.port}/")) as server:
            get(f"http://two.example:{server.port}/", settings, policy, resolver)
            assert "authorization" not in end.asked[3].headers
        with serving(redirects(f"http://one.example:{end.port}/")) as server:
            get(f"http://one.example:{server.port}/", settings, policy, resolver)
            assert "authorization" not in end.asked[4].headers  # another port is another server


def test_netrc_that_the_environment_names(tmp_path):
    (tmp_path / "mine").write_text("machine 127.0.0.1 login me password word\n")
    settings = Settings(home=tmp_path, docker_config=tmp_path, environment={"NETRC": str(tmp_path / "mine")})
    policy = Policy(private=True, netrc=True)
    with serving(sends()) as server:
        get(server.url, settings, policy)
        assert "authorization" in server.asked[0].headers
        (tmp_path / "mine").write_text("machine x login\npassword secret words\n")
        with pytest.raises(SourceError) as caught:
            get(server.url, settings, policy)
        assert caught.value.where == str(tmp_path / "mine")


def _with_proxy(tmp_path, **proxies: str) -> Settings:
    return Settings(home=tmp_path, docker_config=tmp_path, proxies=proxies)


def test_a_proxy_is_dialled_instead(tmp_path):
    with serving(sends(b"by proxy")) as server:
        settings = _with_proxy(tmp_path, http_proxy=server.url.replace("//", "//me:word@"))
        assert get("http://inside.example/x", settings, PUBLIC) == b"by proxy"
        assert server.asked[0].target == "http://inside.example/x"
        assert server.asked[0].headers["proxy-authorization"] == "Basic bWU6d29yZA=="
        for host in ("10.0.0.1", "0x7f000001", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254"):
            with pytest.raises(SourceError):
                get(f"http://{host}/x", settings, PUBLIC)
        assert len(server.asked) == 1


def test_no_proxy(tmp_path):
    with serving(sends(b"proxy")) as proxy, serving(sends(b"direct")) as server:
        settings = _with_proxy(tmp_path, all_proxy=proxy.url, no_proxy="one.example,.sub.example")
        resolver = Resolver({name: [["127.0.0.1"]] for name in ("one.example", "a.sub.example", "two.example")})
        asked = [
            get(f"http://{host}:{server.port}/", settings, OWN, resolver)
            for host in ("one.example", "a.sub.example", "two.example")
        ]
        assert asked == [b"direct", b"direct", b"proxy"] and "two.example" not in resolver.asked


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) for good.example, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key", "-out", folder / "cert",
         "-days", "2", "-subj", "/CN=good.example", "-addext", "subjectAltName=DNS:good.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert", folder / "key"


def test_certificates_go_by_the_name(settings, certificate, monkeypatch):
    """The connection goes to an address, yet SNI and the certificate's name are the host's; http is not gone back to."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    names: list[str] = []
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    resolver = Resolver({name: [["127.0.0.1"]] for name in ("good.example", "bad.example")})

    def wrap(sock):
        return context.wrap_socket(sock, server_side=True)

    with serving(sends(b"safe"), wrap) as server:
        assert get(f"https://good.example:{server.port}/", settings, OWN, resolver) == b"safe"
        with pytest.raises(urllib3.exceptions.SSLError, match=r"bad\.example"):
            get(f"https://bad.example:{server.port}/", settings, OWN, resolver)
        assert names == ["good.example", "bad.example"]
    with (
        serving(redirects("http://good.example/"), wrap) as server,
        pytest.raises(SourceError, match="from https to http"),
    ):
        get(f"https://good.example:{server.port}/", settings, OWN, resolver)
