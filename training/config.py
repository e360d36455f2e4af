"""Reads a run's settings from YAML, and says before it starts what is wrong with them."""

from pathlib import Path
from typing import TypeVar

import yaml

T = TypeVar("T")
CONFIGS = Path(__file__).parent / "configs"


class ConfigError(ValueError):
    """Settings that cannot be used; the message names the key."""


def read_config(kind: type[T], path: Path) -> T:
    """A dataclass of the given kind.

    Raises
    ------
    ConfigError
        The file cannot be read, or a key is missing, unknown or of a value that is not known; the message names it.
    """
    try:
        return kind(**yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path.name}: {str(error).replace(kind.__name__ + '.__init__()', 'the configuration')}"
        ) from None
