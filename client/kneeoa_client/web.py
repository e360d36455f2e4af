"""HTTP as this client does it: proxies and ``~/.netrc`` of the environment are not obeyed, a proxy is named or not used."""

import base64
import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

import requests


def session(url: str, proxy: str | None = None) -> requests.Session:
    """For requests to ``url``; one on this machine is never asked through a proxy. ``REQUESTS_CA_BUNDLE`` is obeyed."""
    made = requests.Session()
    made.trust_env = False  # a film and its token went to whatever HTTP_PROXY named, those for 127.0.0.1 too
    made.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    if proxy and not _is_here(urlsplit(url).hostname or ""):
        made.proxies = {"http": proxy, "https": proxy}
    return made


def ask(method: str, url: str, proxy: str | None = None, **options: Any) -> requests.Response:
    """One request; a redirection is an answer like any other: it might lead a film elsewhere."""
    with session(url, proxy) as ours:
        return ours.request(method, url, allow_redirects=False, **options)


def authorization(credential: str) -> str:
    """The Authorization header for a token, or for ``user:password``."""
    if ":" in credential:
        return f"Basic {base64.b64encode(credential.encode()).decode()}"
    return f"Bearer {credential}"


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
