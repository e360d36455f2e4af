"""Reads a run's settings from YAML."""

from pathlib import Path
from typing import TypeVar

import yaml

T = TypeVar("T")


def read_config(kind: type[T], path: Path) -> T:
    """A dataclass of the given kind; a missing or unknown key is a TypeError that names it."""
    return kind(**yaml.safe_load(path.read_text()))
