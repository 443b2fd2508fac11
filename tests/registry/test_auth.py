"""Tokens: what is asked for, how long it is kept, and to whom passwords are shown."""

import json
import threading
import time
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from kiln.errors import AuthError, RegistryError
from kiln.oci.reference import Reference
from kiln.registry import auth
from kiln.registry.auth import Authenticator, TokenQuestion
from kiln.registry.challenge import Challenge
from kiln.registry.credentials import Credential

HOST = "reg.test"
BEARER = Challenge("bearer", {"realm": "https://auth.test/token", "service": "the service"})
PULL = frozenset({auth.pull("app")})


class Service:
    """A token service that answers by counting."""

    def __init__(self, **answer):
        self.questions: list[TokenQuestion] = []
        self.answer = answer

    def __call__(self, question):
        self.questions.append(question)
        return json.dumps({"token": f"T{len(self.questions)}", **self.answer}).encode()


def test_anonymous_token():
    service = Service()
    made = Authenticator(lambda _: None, service)
    assert made.header(HOST, PULL) == ""
    assert made.answer(HOST, [BEARER], PULL, "") == "Bearer T1"
    assert made.header(HOST, PULL) == "Bearer T1"
    (question,) = service.questions
    assert question.authorization == ""
    assert parse_qsl(urlsplit(question.url).query) == [
        ("service", "the service"),
        ("scope", "repository:app:pull"),
        ("client_id", "kiln"),
    ]


def test_scopes_of_a_mount():
    service = Service()
    wanted = frozenset({auth.push("app"), auth.pull("base")})
    Authenticator(lambda _: Credential("me", "pw"), service).answer(HOST, [BEARER], wanted, "")
    query = parse_qs(urlsplit(service.questions[0].url).query)
    assert query["scope"] == ["repository:app:pull,push", "repository:base:pull"]
    assert query["account"] == ["me"]
    assert service.questions[0].authorization == "Basic bWU6cHc="


def test_each_scope_has_its_token():
    service = Service()
    made = Authenticator(lambda _: None, service)
    made.answer(HOST, [BEARER], PULL, "")
    assert made.header(HOST, frozenset({auth.push("app")})) == "Bearer T2"
    assert made.header(HOST, PULL) == "Bearer T1"
    assert made.header("other.test", PULL) == ""


def test_expiry(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("kiln.registry.auth.time.monotonic", lambda: now[0])
    made = Authenticator(lambda _: None, Service(expires_in=300))
    made.answer(HOST, [BEARER], PULL, "")
    now[0] += 280
    assert made.header(HOST, PULL) == "Bearer T1"
    now[0] += 15
    assert made.header(HOST, PULL) == "Bearer T2"


def test_a_refused_token_is_replaced():
    made = Authenticator(lambda _: None, Service())
    assert made.answer(HOST, [BEARER], PULL, "") == "Bearer T1"
    assert made.answer(HOST, [BEARER], PULL, "Bearer T1") == "Bearer T2"
    assert made.answer(HOST, [BEARER], PULL, "Bearer T1") == "Bearer T2"  # another thread's late 401


def test_identity_token_is_posted():
    service = Service(token=None, access_token="A")
    made = Authenticator(lambda _: Credential(identity_token="SECRET"), service)
    assert made.answer(HOST, [BEARER], PULL, "") == "Bearer A"
    (question,) = service.questions
    assert "SECRET" not in question.url
    assert "SECRET" not in repr(question)
    form = parse_qs(question.form.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["SECRET"]
    assert form["scope"] == ["repository:app:pull"]


def test_registry_token_is_used_as_it_is():
    made = Authenticator(lambda _: Credential(registry_token="R"), Service())
    assert made.answer(HOST, [BEARER], PULL, "") == "Bearer R"
    with pytest.raises(AuthError, match="refused"):
        made.answer(HOST, [BEARER], PULL, "Bearer R")


def test_bearer_before_basic_and_others_refused():
    made = Authenticator(lambda _: Credential("me", "pw"), Service())
    assert made.answer(HOST, [Challenge("basic"), BEARER], PULL, "") == "Bearer T1"
    with pytest.raises(AuthError, match="it offers: negotiate"):
        made.answer(HOST, [Challenge("negotiate")], PULL, "")


@pytest.mark.parametrize("answer", [{"token": ""}, {"token": 3}, {"token": "a\nb"}])
def test_bad_answers(answer):
    with pytest.raises(AuthError, match="token service"):
        Authenticator(lambda _: None, Service(**answer)).answer(HOST, [BEARER], PULL, "")


def test_threads_share_one_token():
    service = Service()

    def slow(question):
        time.sleep(0.02)
        return service(question)

    made = Authenticator(lambda _: None, slow)
    threads = [threading.Thread(target=made.answer, args=(HOST, [BEARER], PULL, "")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.questions) == 1


def test_credentials_are_looked_up_once_and_again_after_a_refusal():
    looked = []

    def find(host):
        looked.append(host)
        return Credential("me", f"pw{len(looked)}")

    made = Authenticator(find, Service())
    first = made.answer(HOST, [Challenge("basic")], PULL, "")
    assert made.header(HOST, PULL) == first
    assert len(looked) == 1
    assert made.answer(HOST, [Challenge("basic")], PULL, first) != first
    assert len(looked) == 2


def test_scopes_are_asked_for_once_a_resource():
    service = Service()
    asked = Challenge("bearer", {**BEARER.parameters, "scope": "repository:app:push registry:catalog:*"})
    Authenticator(lambda _: None, service).answer(HOST, [asked], PULL, "")
    scopes = parse_qs(urlsplit(service.questions[0].url).query)["scope"]
    assert scopes == ["registry:catalog:*", "repository:app:pull,push"]


def challenge(server, realm):
    header = f'Bearer realm="{realm}",service="s"'
    server.on("GET", "/tags/", lambda h: h.error(401, "UNAUTHORIZED", WWW_Authenticate=header), times=99)


def test_no_password_over_plain_http(fake, clients, names, tmp_path):
    from kiln.registry.credentials import Credentials
    from tests.registry.samples import settings

    names("auth.test")
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "pw"))
    challenge(fake, f"http://auth.test:{fake.server_address[1]}/token")
    with pytest.raises(RegistryError, match=r"points to http://auth.test.*not https"):
        clients().tags(Reference(fake.host, "app"))
    assert fake.count("GET", "token") == 0


def test_a_token_services_redirect_is_not_followed(fake, servers, clients, tmp_path):
    from kiln.registry.credentials import Credentials
    from tests.registry.samples import settings

    evil = servers()
    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "pw"))
    challenge(fake, f"http://{fake.host}/token")
    fake.on("GET", "/token", lambda h: h.answer(307, Location=f"http://{evil.host}/steal"), times=9)
    with pytest.raises(RegistryError, match="redirected"):
        clients().tags(Reference(fake.host, "app"))
    assert evil.requests == []


def test_wrong_password_at_the_token_service(fake, clients, tmp_path):
    from kiln.registry.credentials import Credentials
    from tests.registry.samples import settings

    Credentials(settings(tmp_path)).store(fake.host, Credential("me", "SECRET"))
    challenge(fake, f"http://{fake.host}/token")
    fake.on("GET", "/token", lambda h: h.error(401, "UNAUTHORIZED", "bad login"))
    with pytest.raises(AuthError, match="refused the user name or password of 'me'") as caught:
        clients().tags(Reference(fake.host, "app"))
    assert "SECRET" not in repr(caught.value.__cause__) + caught.value.detail
