"""Talks to the workflow endpoint of a kneeoa server."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

WORKFLOW = "wfpredict/knee_oa"
TIMEOUT = 120.0  # s; the workflow's own is 60 s a node


class ServerError(RuntimeError):
    """The server could not be asked; the message says what to do."""


@dataclass
class Server:
    """A server's address and inference key.

    Parameters
    ----------
    url : str
        Of the inference address, e.g. ``http://127.0.0.1:8080``.
    key : str
        TorchServe's inference token.
    """

    url: str
    key: str = field(repr=False)

    @classmethod
    def find(cls, url: str | None = None, key_file: Path | None = None) -> "Server":
        """The named server, or the one that ``make serve`` started here or in a folder above.

        Raises
        ------
        ServerError
            If neither is found.
        """
        url = url or os.environ.get("KNEEOA_SERVER")
        named = key_file or os.environ.get("KNEEOA_KEY_FILE")
        here = Path.cwd()
        run = next((p / ".run" for p in (here, *here.parents) if (p / ".run/server.json").exists()), None)
        if url is None and run is not None:
            url = json.loads((run / "server.json").read_text())["url"]
        keys = Path(named) if named else run and run / "key_file.json"
        if url is None or keys is None:
            raise ServerError("no server found: start one with `make serve`, or name one with --server and --key-file")
        try:
            return cls(url.rstrip("/"), json.loads(keys.read_text())["inference"]["key"])
        except (OSError, ValueError, KeyError):
            raise ServerError(f"cannot read an inference key from {keys}") from None

    def post(self, film: bytes, side: str | None = None, endpoint: str = WORKFLOW) -> dict[str, Any]:
        """One film's reply; an error envelope is a reply like any other.

        Raises
        ------
        ServerError
            If there is no server, the token is refused, or the answer is not one of ours.
        """
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/octet-stream"}
        if side:
            headers["X-Knee-Side"] = side
        try:
            reply = requests.post(f"{self.url}/{endpoint}", data=film, headers=headers, timeout=TIMEOUT)
            message = reply.json()
        except requests.RequestException as error:
            raise ServerError(f"no answer from {self.url} ({type(error).__name__})") from None
        if "schema" not in message:
            raise ServerError(f"{self.url} answered HTTP {reply.status_code}: {message.get('message', 'no message')}")
        return message
