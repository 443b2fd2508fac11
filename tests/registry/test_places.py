import pytest

from kiln.errors import RegistryError
from kiln.registry import certificates
from kiln.registry.places import Places, is_loopback
from kiln.registry.proxies import proxy_for
from kiln.settings import RegistryRules
from tests.registry.samples import settings


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1:80", "127.8.9.1", "[::1]:5000", "LOCALHOST:1"]
)
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["127.0.0.1.evil.test", "localhost.test:5000", "10.0.0.1", "[::2]:1", "docker.io", "0.0.0.0", "128.0.0.1"]
)
def test_not_loopback(host):
    assert not is_loopback(host)


def test_base_urls(tmp_path):
    rules = {"lan:5000": RegistryRules(http=True), "127.0.0.1:2": RegistryRules(ca=tmp_path / "ca.crt")}
    places = Places(settings(tmp_path, rules))
    assert places.base("docker.io") == "https://registry-1.docker.io"
    assert places.base("quay.io") == "https://quay.io"
    assert places.base("lan:5000") == "http://lan:5000"
    assert places.base("127.0.0.1:1") == "http://127.0.0.1:1"
    assert places.base("127.0.0.1:2") == "https://127.0.0.1:2"
    places.use_https("127.0.0.1:1")
    assert places.base("127.0.0.1:1") == "https://127.0.0.1:1"


def test_certs_d_makes_loopback_https(tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "CERTS_D", tmp_path)
    (tmp_path / "127.0.0.1:1").mkdir()
    (tmp_path / "127.0.0.1:1" / "ca.crt").touch()
    places = Places(settings(tmp_path))
    assert places.base("127.0.0.1:1").startswith("https:")
    assert places.base("127.0.0.1:2").startswith("http:")


@pytest.mark.parametrize(
    ("url", "came_from", "allowed"),
    [
        ("https://storage.test/x", "reg.test", True),
        ("http://storage.test/x", "reg.test", False),
        ("http://lan:1/x", "reg.test", True),
        ("http://127.0.0.1:9/x", "reg.test", False),
        ("http://127.0.0.1:9/x", "127.0.0.1:5000", True),
        ("file:///etc/passwd", "127.0.0.1:5000", False),
        ("https:///x", "127.0.0.1:5000", False),
    ],
)
def test_urls_that_a_registry_may_name(tmp_path, url, came_from, allowed):
    places = Places(settings(tmp_path, {"lan:1": RegistryRules(http=True)}))
    if allowed:
        places.check(url, came_from)
    else:
        with pytest.raises(RegistryError, match="is not https"):
            places.check(url, came_from)


@pytest.mark.parametrize(
    ("host", "proxy"),
    [
        ("quay.io", "http://proxy:1"),
        ("reg.example.com", ""),
        ("example.com:8443", ""),
        ("badexample.com", "http://proxy:1"),
        ("10.1.2.3:5000", ""),
        ("11.1.2.3:5000", "http://proxy:1"),
        ("port.test:1", ""),
        ("port.test:2", "http://proxy:1"),
        ("127.0.0.1:5000", ""),
        ("localhost", ""),
    ],
)
def test_proxy_and_no_proxy(host, proxy):
    proxies = {"https_proxy": "proxy:1", "no_proxy": ".example.com, 10.0.0.0/8,port.test:1"}
    assert proxy_for(proxies, "https", host) == proxy


def test_proxy_by_scheme():
    assert proxy_for({"http_proxy": "http://a:1"}, "https", "x.test") == ""
    assert proxy_for({"all_proxy": "http://a:1"}, "https", "x.test") == "http://a:1"
    assert proxy_for({"all_proxy": "http://a:1", "no_proxy": "*"}, "https", "x.test") == ""
