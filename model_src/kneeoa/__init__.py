"""Knee-osteoarthritis grading: radiograph bytes in, eight grades per knee out. docs/python.md shows how it is used."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kneeoa.errors import KneeOaError

if TYPE_CHECKING:
    from kneeoa.graded_film import GradedFilm
    from kneeoa.pipeline import KneeOA

__version__ = "0.6.2"
__all__ = ["SAMPLE", "GradedFilm", "KneeOA", "KneeOaError", "__version__"]

SAMPLE = Path(__file__).parent / "samples/bilateral.dcm"  # a synthetic radiograph of two knees, to try things on


def __getattr__(name: str) -> Any:
    """PyTorch takes seconds to load, and who talks to a server needs none of it."""
    if name == "GradedFilm":
        from kneeoa.graded_film import GradedFilm

        return GradedFilm
    if name == "KneeOA":
        try:
            from kneeoa.pipeline import KneeOA
        except ModuleNotFoundError as error:
            told = f"KneeOA needs {error.name}: pip install 'kneeoa[local]'"
            raise ModuleNotFoundError(told, name=error.name) from error
        return KneeOA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
