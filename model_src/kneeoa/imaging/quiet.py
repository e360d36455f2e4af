"""Keeps the decoding libraries from talking: their warnings and log records quote what is in the file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_NOISY = ("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "PIL")
_LOCK = Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and those libraries' log records; for one thread at a time, since both belong to the process."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
