"""Talks to a kneeoa server: one answer for each film, whatever happens to the server in the meantime."""

import json
import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from kneeoa.errors import KneeOaError
from kneeoa.messages import Message
from kneeoa_client.web import ask

WORKFLOW = "wfpredict/knee_oa"
AWAY = 180.0  # s to wait for a server that does not answer; a restart takes about 30
FAILING = 60.0  # s for which a failing request is repeated; a worker is back in about 10
ATTEMPTS = 4  # however long they take: two may meet a worker that dies, and one that dies costs the server's 60 s
NOT_OF_THE_FILM = (401, 403, 404, 405, 408, 429, 431)  # answers to the client, in the shape of a reply too
AGAIN = (404, 408, 429)  # 404: restarted, and the model is not registered yet
FAILURES = (408, 429)  # and 500 and above: of the server, not of the film
EXPLAIN = "X-Kneeoa-Explain"  # names the tasks that get a heat map
ANY_VIEW = {"X-Kneeoa-Any-View": "yes"}  # asks for grades even where a file says that its view is not frontal
TIMEOUT = 120.0  # s; the workflow's own is 60 s


class ServerError(RuntimeError):
    """The server could not be asked; the message says what to do."""


def locate(kind: str, address: str | None, key_file: Path | None) -> tuple[str, Path]:
    """An address (``url``, ``management``) and a key file: those given, else of the server started here or in a folder above.

    Raises
    ------
    ServerError
        If neither is found.
    """
    named = key_file or os.environ.get("KNEEOA_KEY_FILE")
    here = Path.cwd()
    run = next((p / ".run" for p in (here, *here.parents) if (p / ".run/server.json").exists()), None)
    if address is None and run is not None:
        address = json.loads((run / "server.json").read_text())[kind]
    keys = Path(named) if named else run and run / "key_file.json"
    if address is None or keys is None:
        raise ServerError("no server found: start one with `make serve`, or give its address and --key-file")
    return address.rstrip("/"), keys


class ServerFailed(KneeOaError):
    """The server failed on this film at every attempt."""

    code = "server_failed"


def is_failure(reply: Message) -> bool:
    """Whether a reply is about the server or a disk and not about the film, so that trying again is worthwhile."""
    return reply["status"] == "error" and (
        reply["error"]["http_status"] >= 500 or reply["error"]["http_status"] in FAILURES
    )


@dataclass
class Client:
    """A server's address and inference key.

    Parameters
    ----------
    url : str
        The inference address or the gateway's, e.g. ``http://127.0.0.1:8080``.
    key : str
        TorchServe's inference token, or the gateway's.
    key_file : Path, optional
        Where the token came from; it is read again if the token is refused.
    closing : threading.Event
        Once it is set, failed requests are not repeated.
    reached : bool
        Whether the server has ever answered; one that has not is not waited for.
    headers : dict
        Sent with each request, in addition to our own.
    proxy : str, optional
        Proxy for the server, unless it is on this machine.
    """

    url: str
    key: str = field(repr=False)
    key_file: Path | None = None
    closing: threading.Event = field(default_factory=threading.Event, repr=False)
    reached: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    proxy: str | None = None

    @classmethod
    def find(cls, url: str | None = None, key_file: Path | None = None, proxy: str | None = None) -> "Client":
        """The named server, or the one that ``make serve`` started here or in a folder above.

        Raises
        ------
        ServerError
            If neither is found.
        """
        address, keys = locate("url", url or os.environ.get("KNEEOA_SERVER"), key_file)
        try:
            return cls(address, json.loads(keys.read_text())["inference"]["key"], keys, proxy=proxy)
        except (OSError, ValueError, KeyError):
            raise ServerError(f"cannot read an inference key from {keys}") from None

    def post(self, film: bytes, side: str | None = None, endpoint: str = WORKFLOW) -> dict[str, Any]:
        """The reply to one film, from a single attempt; an error envelope counts as a reply.

        Raises
        ------
        ServerError
            If there is no server, the token is refused, or the answer is not one of ours.
        """
        try:
            answer = self._send(film, endpoint, side)
        except requests.RequestException as error:
            raise ServerError(silent(self.url, error)) from None
        if (message := _ours(answer)) is None:
            raise ServerError(f"{self.url} answered HTTP {answer.status_code}: {_text(answer)}")
        return message

    def post_patiently(self, film: bytes, side: str | None = None, endpoint: str = WORKFLOW) -> dict[str, Any]:
        """As `post`, but tries again, at growing intervals, while the server fails, is busy, restarts or changes its key.

        Raises
        ------
        ServerFailed
            If the server answers but failed on this request for `FAILING` seconds and `ATTEMPTS` times, without an error of ours.
        ServerError
            If the server did not answer for `AWAY` seconds, the key is refused, or `closing` was set.
        """
        started, pause, attempts = time.monotonic(), 0.1, 0
        while True:
            message, patience, attempts = None, AWAY, attempts + 1
            try:
                answer = self._send(film, endpoint, side)
                self.reached = True
                message, status = _ours(answer), answer.status_code
                if message is not None and status < 500 and status not in NOT_OF_THE_FILM:
                    return message
                fault = f"{self.url} answered HTTP {status}: {_text(answer)}"
                if status in (400, 401, 403) and self._reread_key():
                    continue
                if status < 500 and status not in AGAIN:
                    raise ServerError(fault)
                patience = AWAY if status in (404, 503) else FAILING
                if message is not None and message["error"]["code"] == "busy":
                    started, attempts = time.monotonic(), 0  # it is there and works: waiting for a place is no failure
            except (requests.ConnectionError, requests.Timeout) as error:
                fault = silent(self.url, error)
                if not self.reached:
                    raise ServerError(fault) from None
            if attempts >= ATTEMPTS and time.monotonic() + pause > started + patience:
                if patience == AWAY:
                    raise ServerError(fault)
                if message is None:
                    raise ServerFailed
                return message
            if self.closing.wait(pause * random.uniform(0.5, 1.0)):  # not all clients at once
                raise ServerError("given up")
            pause = min(2 * pause, 5.0)

    def _send(self, body: bytes, endpoint: str, side: str | None) -> requests.Response:
        headers = {
            **self.headers,
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/octet-stream",
            "X-Request-Start": f"t={time.time() * 1000:.0f}",  # its age is measured; a gateway puts its own in place
        }
        if side:
            headers["X-Knee-Side"] = side
        return ask("POST", f"{self.url}/{endpoint}", self.proxy, data=body, headers=headers, timeout=TIMEOUT)

    def _reread_key(self) -> bool:
        """Whether the key file holds a new key, as after a restart."""
        try:
            key = json.loads(self.key_file.read_text())["inference"]["key"] if self.key_file else self.key
        except (OSError, ValueError, KeyError):
            return False
        changed, self.key = key != self.key, key
        return changed


def silent(url: str, error: Exception, option: str = "--server") -> str:
    """What to do about a server that does not answer."""
    if isinstance(error, requests.ConnectionError):
        return f"no answer from {url}: start a server with `make serve`, or name another with {option}"
    return f"no answer from {url} ({type(error).__name__})"


def _ours(answer: requests.Response) -> dict[str, Any] | None:
    """The message, if it is one of this service."""
    try:
        message = answer.json()
    except ValueError:
        return None
    return message if isinstance(message, dict) and "schema" in message else None


def _text(answer: requests.Response) -> str:
    try:
        message = answer.json()
        return str(message.get("message") or message["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "no message"
