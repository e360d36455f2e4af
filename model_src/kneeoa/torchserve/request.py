"""The few words of TorchServe's request format that both handlers share; duck-typed, so nothing here imports it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kneeoa.errors import BadRequest, EmptyBody, InternalError
from kneeoa.messages import Message, envelope


def body_of(row: dict[str, Any]) -> bytes:
    """The bytes of one batch item, sent raw (``body``) or as a form field (``data``).

    Raises
    ------
    EmptyBody
        If there are none.
    BadRequest
        If TorchServe made anything but text, an object or a list of them: of a number, ``bytes`` makes as many zeros.
    """
    body = row.get("body", row.get("data"))
    if isinstance(body, dict | list):  # TorchServe parses application/json unless decode_input_request forbids it
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    if body is None or body in (b"", bytearray()):
        raise EmptyBody
    if not isinstance(body, bytes | bytearray):
        raise BadRequest("the body must be a file or a detection message")
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
    """One JSON document per item. ``/predictions`` also gets the HTTP status; the workflow engine drops it.

    A message with a number that JSON does not have, which no client could read, becomes an internal error; it is replaced
    in ``messages`` too.
    """
    replies = []
    for index, message in enumerate(messages):
        try:
            reply = _json(message)
        except ValueError:
            messages[index] = message = envelope(message["schema"], InternalError(), model=message["model"])
            reply = _json(message)
        if error := message["error"]:
            context.set_response_status(code=error["http_status"], phrase=error["code"], idx=index)
        context.set_response_content_type(index, "application/json")
        replies.append(reply)
    return replies


def _json(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
