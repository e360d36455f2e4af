"""Whom the client asks, and with what: neither is the environment's to decide."""

import pytest
import requests

from kneeoa_cli.pacs.dicomweb import WebPeer
from kneeoa_client.client import Client, ServerError
from kneeoa_client.management import Management
from kneeoa_client.web import ask, session


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A proxy where nobody listens, and a password for this machine."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text("default login anna password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_films_and_tokens_go_where_they_are_sent_whatever_the_environment_says(environment, fake, server):
    assert server.post(b"film")["status"] == "ok"

    assert fake.headers[-1]["Authorization"] == "Bearer key"


def test_management_and_dicomweb_too(environment, fake, server, tmp_path):
    key_file = tmp_path / "management.json"
    key_file.write_text('{"management": {"key": "token"}}')
    with pytest.raises(ServerError, match="answered HTTP 501"):  # it knows POST only, but it was asked
        Management(server.url, key_file).describe("grader")
    assert not WebPeer("http://pacs", 1)._client()._session.trust_env


def test_a_proxy_is_used_where_it_is_named_and_never_for_this_machine(environment, fake, server):
    elsewhere = Client("http://kneeoa.invalid:8080", "key", proxy=server.url)
    here = Client(server.url, "key", proxy="http://127.0.0.1:9")

    assert elsewhere.post(b"through")["status"] == here.post(b"straight")["status"] == "ok"
    assert fake.headers[0]["Host"] == "kneeoa.invalid:8080"


def test_dicomweb_credentials_are_named_and_told_to_nobody(fake, server):
    for credential, header in (("token", "Bearer token"), ("anna:secret", "Basic YW5uYTpzZWNyZXQ=")):
        peer = WebPeer(server.url, 1, credential)
        peer._client()._session.post(f"{server.url}/x", data=b"film")

        assert fake.headers[-1]["Authorization"] == header
        assert credential not in repr(peer)


def test_a_redirection_leads_no_film_elsewhere(monkeypatch):
    sent = []

    def send(self, request, **options):
        sent.append(request.url)
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 307, request, request.url
        answer.headers["Location"] = "http://thief.invalid/"
        answer._content = b""
        return answer

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)

    assert ask("POST", "http://kneeoa.invalid/", data=b"film").status_code == 307
    assert sent == ["http://kneeoa.invalid/"]


def test_the_certificates_of_the_environment_are_kept(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/ca.pem")

    assert session("https://kneeoa.invalid").verify == "/ca.pem"
