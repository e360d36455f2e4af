"""The few words of TorchServe's request format that both handlers share; duck-typed, so nothing here imports it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kneeoa.errors import EmptyBody
from kneeoa.messages import Message


def body_of(row: dict[str, Any]) -> bytes:
    """The bytes of one batch item, sent raw (``body``) or as a form field (``data``).

    Raises
    ------
    EmptyBody
        If there are none.
    """
    body = row.get("body") or row.get("data") or b""
    if isinstance(body, dict | list):  # TorchServe parses application/json for us
        return json.dumps(body).encode()
    if isinstance(body, str):
        return body.encode()
    if not body:
        raise EmptyBody
    return bytes(body)


def header(context: Any, index: int, name: str) -> str | None:
    """A request header of one batch item, whatever its spelling's case."""
    headers = context.get_all_request_header(index) or {}
    return next((value for key, value in headers.items() if key.lower() == name), None)


@contextmanager
def no_sooner(seconds: float) -> Iterator[None]:
    """Lets what is inside take at least so long.

    TorchServe's workflow engine queues a job first and attaches what waits for its reply afterwards; a reply that is faster,
    as that to a bad film is, is lost, and the request hangs until its time-out (docs/operations.md).
    """
    began = time.monotonic()
    yield
    time.sleep(max(0.0, began + seconds - time.monotonic()))


def answer(messages: list[Message], context: Any) -> list[bytes]:
    """One JSON document per item. ``/predictions`` also gets the HTTP status; the workflow engine drops it."""
    for index, message in enumerate(messages):
        if message["error"]:
            status = message["error"]["http_status"]
            context.set_response_status(code=status, phrase=message["error"]["code"], idx=index)
        context.set_response_content_type(index, "application/json")
    return [json.dumps(message, separators=(",", ":")).encode() for message in messages]
