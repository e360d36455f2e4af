"""The JSON Schemas of both messages, as files beside this one: ``python -m kneeoa.schemas`` writes them anew."""

import json
from pathlib import Path
from typing import Any

import msgspec

from kneeoa.incoming import DETECTION
from kneeoa.wire import Reply

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[Path, dict[str, Any]]:
    """By file: what a detection may hold, and what a reply does hold."""
    folder = Path(__file__).parent
    return {
        folder / "detection.schema.json": {"$schema": DIALECT, **DETECTION},
        folder / "reply.schema.json": {"$schema": DIALECT, **msgspec.json.schema(Reply)},
    }


def text_of(schema: dict[str, Any]) -> str:
    """As it is in its file."""
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    for path, schema in schemas().items():
        path.write_text(text_of(schema))
