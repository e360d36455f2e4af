"""Whose knees a film shows: what the file and the requester say, held against what is seen. Never a guess."""

from collections.abc import Sequence
from dataclasses import dataclass

from kneeoa.geometry import Box
from kneeoa.imaging.field import blank_half
from kneeoa.imaging.prepare import split_bilateral
from kneeoa.imaging.radiograph import Radiograph
from kneeoa.tasks import Laterality

UNKNOWN = Laterality.UNKNOWN, "unknown"

# Of a knee alone on a wide field, so much to either side is its single-knee image, in widths of its box: half a
# bilateral film. Narrower fields stay whole.
REACH = 1.05

Side = tuple[Laterality, str]  # and how it is known: `DetectedKnee.side_source`


def half_sides(radiograph: Radiograph) -> tuple[Side, Side]:
    """Sides of the image-left and the image-right knee of a film of two.

    In the usual display the patient's right knee lies at the image's left; PatientOrientation can say otherwise.
    """
    if radiograph.rows_run_to_right:
        return (Laterality.LEFT, "position_swapped"), (Laterality.RIGHT, "position_swapped")
    return (Laterality.RIGHT, "position"), (Laterality.LEFT, "position")


def single_side(radiograph: Radiograph, requested: Laterality | None = None) -> Side:
    """The one side that is named: by the header, then by the request, else unknown."""
    if radiograph.laterality is not Laterality.UNKNOWN:
        return radiograph.laterality, "dicom_tag"
    if requested in (Laterality.RIGHT, Laterality.LEFT):
        return requested, "request"
    return UNKNOWN


def in_conflict(radiograph: Radiograph, requested: Laterality | None, seen: int) -> bool:
    """Whether what is named contradicts itself, or one side is named where two knees are seen or declared."""
    named = single_side(radiograph, requested)[0] is not Laterality.UNKNOWN
    return radiograph.contradictory or (named and (seen == 2 or radiograph.bilateral))


@dataclass(frozen=True)
class Place:
    """Where a knee seen alone stands among two: ``index`` 0 image left, 1 right; certain where the middle is beside it."""

    index: int
    certain: bool


def place_among_two(box: Box, film_width: int, columns: slice, lively: Sequence[float], declared: bool) -> Place | None:
    """The place of a knee seen alone; None where no second one is expected.

    It is expected where the header declares two, where one half of the film is blank, and where there is room for
    another knee beside this one, with something in it.

    Parameters
    ----------
    box : Box
        In film pixels.
    columns, lively
        The film's field, and the share of it from where to where there is contrast.
    declared : bool
        Whether the header says that both knees are shown.
    """
    start, stop, _ = columns.indices(film_width)
    half = blank_half(columns, film_width)
    left, right = (start + share * (stop - start) for share in lively[:2])
    if not (declared or half or max(box.x1 - left, right - box.x2) >= box.width):
        return None
    middle = film_width / 2 if half else (start + stop) / 2
    return Place(int(box.centre[0] > middle), not box.x1 < middle < box.x2)


def halves_between(width: int, left: Box, right: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    """Columns of the two halves: split at the middle, or, where that would cut one of the two knees, between them."""
    if left.x2 <= width / 2 <= right.x1:
        return split_bilateral(width)
    between = round((left.x2 + right.x1) / 2)
    return (0, between), (between, width)


def columns_around(box: Box, width: int) -> tuple[int, int]:
    """Columns of a knee's single-knee image on a field of so many columns."""
    reach, x = REACH * box.width, box.centre[0]
    if width <= 2.4 * reach:
        return 0, width
    return max(0, round(x - reach)), min(width, round(x + reach))
