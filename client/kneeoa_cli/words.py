"""The words of a report's pages, from a file a language; what a file does not say is said in English."""

import json
from importlib.resources import files
from typing import Any

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.remarks import WORDS
from kneeoa.tasks import TASKS

FOLDER = files("kneeoa_cli") / "languages"


def languages() -> list[str]:
    """Those that there are."""
    return sorted(file.name.removesuffix(".json") for file in FOLDER.iterdir() if file.name.endswith(".json"))


def words(language: str = "en") -> dict[str, Any]:
    """By key; the names of tasks and the remarks of `kneeoa.remarks` lie under ``task`` and ``remark``, by theirs."""
    english, own = (json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in ("en", language))
    return {
        "disclaimer": DISCLAIMER,
        **english,
        **own,
        "task": {task.name: task.title for task in TASKS} | own.get("task", {}),
        "remark": WORDS | own.get("remark", {}),
    }
