"""What the client does when registries misbehave."""

import base64
import socket
import ssl
import subprocess
import sys

import pytest

from kiln.errors import AuthError, NotFoundError, RegistryError, UsageError
from kiln.oci.reference import Reference, parse
from kiln.registry.backoff import Backoff
from kiln.registry.credentials import Credential, Credentials
from kiln.registry.login import login, logout
from kiln.settings import RegistryRules
from tests.registry.samples import QUICK, settings
from tests.services import authority, free_port


def ref(server, name="app", tag="1"):
    return Reference(server.host, name, tag)


def want_basic(server, user="me", password="SECRET-pw"):
    """Makes a fake want Basic for everything."""
    right = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    begin = server.begin

    def guarded(seen):
        fault = begin(seen)
        if seen.headers.get("Authorization") == right:
            return fault
        from tests.registry.fakes import Fault

        return Fault("", "", lambda h: (h.body(), h.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="x"')), 1)

    server.begin = guarded


def test_importing_is_cheap():
    code = "import sys, kiln.registry.client, kiln.registry.pull, kiln.registry.push, kiln.registry.copy, kiln.registry.login;"
    code += "print(sorted({'urllib3', 'ssl', 'http.client', 'concurrent.futures', 'email'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_opening_reads_the_library_in():
    code = "import sys; from kiln import settings; from kiln.registry.client import Client; "
    code += "client = Client(settings.read({})); print('urllib3' in sys.modules); client.open(); print('urllib3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_500_twice_then_ok(fake, client):
    fake.on("GET", "/tags/", lambda h: h.error(500, "UNKNOWN"), times=2)
    assert client.tags(ref(fake)) == []
    assert fake.count("GET", "/tags/") == 3


def test_500_for_ever(fake, client):
    fake.on("GET", "/tags/", lambda h: h.error(503, "UNAVAILABLE", "database down"), times=99)
    with pytest.raises(RegistryError, match=r"answered 503 for the tags: UNAVAILABLE: database down") as caught:
        client.tags(ref(fake))
    assert caught.value.status == 503
    assert fake.count("GET") == 5


def test_429_with_retry_after(fake, clients):
    waits = []
    client = clients(backoff=Backoff(sleep=waits.append))
    fake.on("GET", "/tags/", lambda h: h.error(429, "TOOMANYREQUESTS", Retry_After="17"))
    assert client.tags(ref(fake)) == []
    assert waits == [17]


def test_429_for_ever(fake, client):
    fake.on("GET", "/tags/", lambda h: h.error(429, "TOOMANYREQUESTS", "pull rate limit"), times=99)
    with pytest.raises(RegistryError, match=r"too many requests.*pull rate limit") as caught:
        client.tags(ref(fake))
    assert "mirror" in caught.value.hint
    assert caught.value.code == "TOOMANYREQUESTS"


def test_400_is_not_tried_again(fake, client):
    fake.on("GET", "/tags/", lambda h: h.error(400, "NAME_INVALID"), times=99)
    with pytest.raises(RegistryError, match="NAME_INVALID"):
        client.tags(ref(fake))
    assert fake.count("GET", "/tags/") == 1


def test_connection_cut_before_the_answer(fake, client):
    fake.on("GET", "/tags/", lambda h: h.cut(), times=2)
    assert client.tags(ref(fake)) == []
    assert fake.count("GET", "/tags/") == 3


def test_error_text_cannot_write_to_the_terminal(fake, client):
    fake.on("GET", "/tags/", lambda h: h.error(403, "DENIED", "no\x1b[2J\nreally"))
    with pytest.raises(AuthError) as caught:
        client.tags(ref(fake))
    assert caught.value.status == 403
    assert caught.value.message.isprintable()


def test_html_errors_are_not_shown(fake, client):
    fake.on("GET", "/tags/", lambda h: h.answer(404, b"<html><h1>Not here</h1>"))
    with pytest.raises(NotFoundError) as caught:
        client.tags(ref(fake))
    assert "<" not in caught.value.message


def test_unreachable(clients):
    waits = []
    port = free_port()
    with pytest.raises(RegistryError, match=rf"127.0.0.1:{port} cannot be reached: connection refused") as caught:
        clients(backoff=Backoff(sleep=waits.append)).tags(parse(f"127.0.0.1:{port}/app"))
    assert "that it runs" in caught.value.hint
    assert len(waits) == 2


def test_a_registry_that_restarts_gets_more_time(fake, clients):
    waits = []
    client = clients(backoff=Backoff(sleep=waits.append))
    client.tags(ref(fake))
    fake.stop()
    client.close()
    with pytest.raises(RegistryError, match="cannot be reached"):
        client.tags(ref(fake))
    assert len(waits) == 4


def test_unknown_host(client, monkeypatch):
    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RegistryError, match=r"the host name of nowhere.test is not known"):
        client.tags(parse("nowhere.test/app"))


def test_plain_http_is_refused_but_on_loopback(fake, clients, names):
    names("registry.test")
    host = f"registry.test:{fake.server_address[1]}"
    with pytest.raises(RegistryError, match="does not speak https, and plain http is refused") as caught:
        clients().tags(Reference(host, "app"))
    assert f'[registry."{host}"] http = true' in caught.value.hint
    assert fake.requests == []
    assert clients({host: RegistryRules(http=True)}).tags(Reference(host, "app")) == []


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls_fake(servers, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return servers(tls=context)


def test_unknown_ca(tls_fake, clients, names):
    names("registry.test")
    host = f"registry.test:{tls_fake.server_address[1]}"
    with pytest.raises(RegistryError, match=r"certificate of .* cannot be verified") as caught:
        clients().tags(Reference(host, "app"))
    assert "ca =" in caught.value.hint
    assert f"/etc/docker/certs.d/{host}" in caught.value.hint


def test_wrong_name_in_certificate(tls_fake, clients, names, certificates):
    names("other.test")
    host = f"other.test:{tls_fake.server_address[1]}"
    with pytest.raises(RegistryError, match=r"[Hh]ostname mismatch"):
        clients({host: RegistryRules(ca=certificates.ca)}).tags(Reference(host, "app"))


def test_ways_to_trust_a_ca(tls_fake, clients, certificates, tmp_path, monkeypatch):
    host = tls_fake.host
    target = Reference(host, "app")
    assert clients({host: RegistryRules(ca=certificates.ca)}).tags(target) == []
    assert clients({host: RegistryRules(verify=False)}).tags(target) == []
    monkeypatch.setattr("kiln.registry.certificates.CERTS_D", tmp_path)
    (tmp_path / host).mkdir()
    (tmp_path / host / "own.crt").write_bytes(certificates.ca.read_bytes())
    assert clients().tags(target) == []


def test_ssl_cert_file(tls_fake, clients, certificates, names):
    names("registry.test")
    host = f"registry.test:{tls_fake.server_address[1]}"
    assert clients(environment={"SSL_CERT_FILE": str(certificates.ca)}).tags(Reference(host, "app")) == []


def test_bad_ca_file_is_named(clients, tmp_path):
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(UsageError, match="cannot be used as a CA file"):
        clients({"127.0.0.1:1": RegistryRules(ca=tmp_path / "ca")}).tags(parse("127.0.0.1:1/app"))


def test_proxy_is_used_and_never_for_loopback(fake, servers, clients):
    proxy = servers()
    client = clients({"far.test": RegistryRules(http=True)}, proxies={"http_proxy": f"http://u:p@{proxy.host}"})
    proxy.on("GET", "^http://far.test/v2/app/tags", lambda h: h.answer(200, b'{"tags": ["proxied"]}'))
    assert client.tags(parse("far.test/app")) == ["proxied"]
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
    assert client.tags(ref(fake)) == []
    assert len(proxy.requests) == 1


def test_basic(fake, clients, tmp_path):
    want_basic(fake)
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-pw"))
    client = clients()
    assert client.tags(ref(fake)) == []
    assert client.tags(ref(fake)) == []
    assert fake.count("GET") == 3  # the 401, its answer, and then at once


def test_no_credentials(fake, client):
    want_basic(fake)
    with pytest.raises(AuthError, match="wants a user name and a password") as caught:
        client.tags(ref(fake))
    assert f"kiln login {fake.host}" in caught.value.hint


def test_wrong_password_is_asked_once_and_not_shown(fake, clients, tmp_path):
    want_basic(fake)
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-wrong"))
    client = clients()
    with pytest.raises(AuthError):
        client.tags(ref(fake))
    with pytest.raises(AuthError, match="refused the user name or password of 'me'") as caught:
        client.tags(ref(fake))
    error = caught.value
    assert "SECRET" not in f"{error} {error.hint} {error.detail} {error!r}"
    assert fake.count("GET") <= 4


def test_redirects_do_not_carry_credentials(fake, servers, clients, tmp_path):
    want_basic(fake)
    storage = servers()
    storage.on("GET", "/bucket", lambda h: h.answer(200, b'{"tags": ["there"]}'))
    fake.on("GET", "/tags/", lambda h: h.answer(307, Location=f"http://{storage.host}/bucket?signature=x"), times=2)
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-pw"))
    assert clients().tags(ref(fake)) == ["there"]
    assert [seen.headers.get("Authorization") for seen in storage.requests] == [None]
    assert fake.requests[-1].headers["Authorization"].startswith("Basic ")


def test_nor_do_redirects_that_come_back(fake, servers, clients, tmp_path):
    want_basic(fake)
    storage = servers()
    storage.on("GET", "/bucket", lambda h: h.answer(302, Location=f"http://{fake.host}/v2/secret/tags/list"))
    fake.on("GET", "/v2/app/tags/", lambda h: h.answer(307, Location=f"http://{storage.host}/bucket"), times=2)
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-pw"))
    with pytest.raises(AuthError):
        clients().tags(ref(fake))
    assert "Authorization" not in fake.requests[-1].headers


def test_redirect_on_the_same_host_does(fake, clients, tmp_path):
    want_basic(fake)
    fake.on("GET", "/v2/app/tags/", lambda h: h.answer(301, Location="/v2/moved/tags/list"), times=2)
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-pw"))
    assert clients().tags(ref(fake)) == []


def test_redirects_end(fake, client):
    fake.on("GET", "/tags/", lambda h: h.answer(302, Location="/v2/app/tags/list"), times=99)
    with pytest.raises(RegistryError, match="more than 5 redirects"):
        client.tags(ref(fake))
    assert len(fake.requests) == 6


def test_another_hosts_401_is_not_answered(fake, servers, clients, tmp_path):
    storage = servers()
    header = f'Bearer realm="http://{storage.host}/token"'
    storage.on("GET", "/bucket", lambda h: h.error(401, "UNAUTHORIZED", WWW_Authenticate=header), times=9)
    fake.on("GET", "/tags/", lambda h: h.answer(307, Location=f"http://{storage.host}/bucket"), times=9)
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET-pw"))
    with pytest.raises(AuthError):
        clients().tags(ref(fake))
    assert [seen.path for seen in storage.requests] == ["/bucket"]


def test_redirect_to_plain_http_is_refused(fake, client, names):
    names("evil.test")
    location = f"http://evil.test:{fake.server_address[1]}/x"
    fake.on("GET", "/tags/", lambda h: h.answer(302, Location=location))
    with pytest.raises(RegistryError, match=r"points to http://evil.test.* which is not https"):
        client.tags(ref(fake))
    assert len(fake.requests) == 1


def test_login_and_logout(fake, tmp_path):
    want_basic(fake)
    made = settings(tmp_path)
    with pytest.raises(AuthError, match="refused the user name or password"):
        login(made, fake.host, Credential("me", "SECRET-wrong"), backoff=QUICK)
    assert not (made.docker_config / "config.json").exists()
    assert login(made, fake.host, Credential("me", "SECRET-pw"), backoff=QUICK).endswith("config.json")
    assert Credentials(made).find(fake.host) == Credential("me", "SECRET-pw")
    assert logout(made, fake.host)
    assert not logout(made, fake.host)
