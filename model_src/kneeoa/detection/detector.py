"""From a decoded radiograph to one `DetectedKnee` per expected knee: a knee never silently disappears."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kneeoa.detection.cascade import Cascade, CascadeConfig, Found, beside
from kneeoa.detection.growth_plates import shows_growth_plates
from kneeoa.detection.handedness import Handedness
from kneeoa.detection.implant import shows_implant
from kneeoa.detection.layout import (
    UNKNOWN,
    Side,
    columns_around,
    half_sides,
    halves_between,
    in_conflict,
    place_among_two,
    single_side,
)
from kneeoa.detection.markers import Markers
from kneeoa.detection.networks import Level1, Level2, pooled_first
from kneeoa.detection.scope import out_of_scope
from kneeoa.errors import NotARadiograph
from kneeoa.geometry import Box, crop, main_joint
from kneeoa.imaging.field import field_of, lively
from kneeoa.imaging.prepare import (
    check_shape,
    correct_polarity,
    inverted,
    looks_bilateral,
    prepare_single,
    split_bilateral,
)
from kneeoa.imaging.radiograph import Radiograph, as_levels
from kneeoa.messages import DetectedKnee, Message
from kneeoa.tasks import Laterality
from kneeoa.timing import Clock
from kneeoa.weights import Weights, WeightsError, read_weights

SURE = 0.999  # score of a knee from which nobody asks whether it leans
CLIPPED = 0.05  # share of a main joint at its darkest or brightest value from which contrast was lost


@dataclass(frozen=True)
class View:
    """A single-knee image and the best knee on it.

    Attributes
    ----------
    image : uint8 ndarray of shape (h, w)
        Equalised; as tall as the film's field. Of no size where there is no contrast.
    x : int
        Column of the field where it begins, px.
    found : Found or None
        In the image's pixels, whatever its score.
    """

    image: np.ndarray
    x: int
    found: Found | None


class Detector:
    """Finds the knees of films. Stateless after construction."""

    def __init__(self, weights: Weights, handedness: Handedness | None = None) -> None:
        stored = weights.metadata["preprocessing"]
        unknown = set(stored) ^ set(asdict(CascadeConfig()))
        if unknown:
            raise WeightsError(f"the preprocessing of these weights and of this code differ in {sorted(unknown)}")
        self.cascade = Cascade(Level1(), Level2(), CascadeConfig(**stored))
        for prefix, level in (("level1", self.cascade.level1), ("level2", self.cascade.level2)):
            part = {k.removeprefix(prefix + "."): v for k, v in weights.tensors.items() if k.startswith(prefix)}
            Weights(part, weights.metadata, weights.sha256).load_into(level)
            level.trunk = pooled_first(level.trunk)
        self.identity, self.handedness, self.markers = weights.identity, handedness, Markers()

    @classmethod
    def from_file(cls, path: Path) -> "Detector":
        """From its weights; with ``handedness.json`` beside them it doubts sides that do not look right."""
        extra = path.with_name("handedness.json")
        return cls(read_weights(path, "detector"), Handedness.from_file(extra) if extra.exists() else None)

    def detect(
        self, film: Radiograph, side: Laterality | None = None, clock: Clock | None = None, any_view: bool = False
    ) -> tuple[Message, list[DetectedKnee]]:
        """Facts about the film and its knees, image left first.

        Parameters
        ----------
        film : Radiograph
        side : Laterality, optional
            What the requester knows of a single-knee film; the file's own statement wins.
        clock : Clock, optional
            Is told how long the stages ``prepare`` and ``detect`` take.
        any_view : bool
            Look for knees even where the file says that the view is not frontal.

        Raises
        ------
        NotARadiograph
            If the film has no contrast, is too small or too narrow.
        """
        clock = clock or Clock()
        with clock("prepare"):
            levels = as_levels(film.pixels)
            field = field_of(levels)
            pixels, rule = correct_polarity(levels, film.polarity)
        if not film.frontal and not any_view:
            return self._facts(film, rule, [], [self._refused(film, side, "not_frontal")])
        knees, warnings = self._look(pixels, field, film, side, clock)
        if not any(map(_is_seen, knees)):
            # A wrong tag or a misread background: a film whose knees show up only when inverted is an inverted film.
            others, told = self._look(inverted(pixels), field, film, side, clock)
            if any(map(_is_seen, others)):
                knees, warnings, rule = others, ["polarity_overridden", *told], "inverted_to_find_knees"
            else:
                with clock("prepare"):
                    whole = prepare_single(pixels[field])
                with clock("detect"):
                    reason = self.cascade.seen_turned(whole)
                knees = [replace(knee, status="rejected", reason=reason) for knee in knees] if reason else knees
        warnings += [] if film.frontal else ["not_frontal"]
        return self._facts(film, rule, warnings, knees)

    def _facts(
        self, film: Radiograph, rule: str, warnings: list[str], knees: list[DetectedKnee]
    ) -> tuple[Message, list[DetectedKnee]]:
        facts = {
            "width": film.pixels.shape[1],
            "height": film.pixels.shape[0],
            "spacing_mm": film.spacing_mm and list(film.spacing_mm),
            "source": film.source,
            "transfer_syntax": film.transfer_syntax,
            "bits": film.bits,
            "polarity": rule,
            "layout": "bilateral" if len(knees) == 2 else "single",
            "warnings": warnings,
        }
        return facts, knees

    def _look(
        self, pixels: np.ndarray, field: tuple[slice, slice], film: Radiograph, side: Laterality | None, clock: Clock
    ) -> tuple[list[DetectedKnee], list[str]]:
        """Knees of a film in one polarity, and warnings."""
        views = self._views(pixels[field], film.bilateral, clock)
        seen = [view for view in views if self._is_knee(view.found)]
        conflict = in_conflict(film, side, len(seen))
        named = UNKNOWN if conflict else single_side(film, side)
        pair = (UNKNOWN, UNKNOWN) if conflict else half_sides(film)
        if len(views) == 2 and named is UNKNOWN:
            knees = [self._knee(pixels, film, field, view, known) for view, known in zip(views, pair, strict=True)]
        elif len(seen) == 1 and named is UNKNOWN:
            knees = self._alone(pixels, field, film, seen[0], pair)
        else:
            best = max(views, key=lambda view: view.found.score if view.found else 0.0)
            knees = [self._knee(pixels, film, field, best, named)]
        clipped = any(_is_clipped(film.pixels, knee.main_joint) for knee in knees if knee.main_joint)
        doubtful = self._doubt(pixels, knees, film.rows_run_to_right)
        growing = any(shows_growth_plates(pixels, knee.key_points) for knee in knees if knee.key_points)
        told = {
            "laterality_conflict": conflict,
            "side_doubtful": doubtful,
            "clipped_histogram": clipped,
            "growth_plates": growing,
        }
        return knees, [warning for warning, holds in told.items() if holds]

    def _doubt(self, pixels: np.ndarray, knees: Sequence[DetectedKnee], swapped: bool) -> bool:
        """Whether the knees look like those of the other side, or letters on the film say so."""
        sides = [(knee.box, knee.side) for knee in knees if knee.box]
        seen_as = [(box, side.other if swapped else side) for box, side in sides]
        looks = self.handedness is not None and self.handedness.doubts(pixels, seen_as)
        # A letter beside a knee that was not found would seem to name the other one.
        return looks or (len(sides) == len(knees) and self.markers.doubt(pixels, sides, swapped))

    def _views(self, pixels: np.ndarray, two_declared: bool, clock: Clock) -> list[View]:
        """The field's single-knee images: two where two knees are seen on it, or might be where none is."""
        (height, width), both = pixels.shape, (0, pixels.shape[1])
        check_shape(height, width)
        halves = self._halves(pixels, clock) if two_declared or looks_bilateral(height, width) else []
        good = [view.found.shifted(view.x) for view in halves if view.found and self._is_knee(view.found)]
        pair = len(good) == 2 and beside(good[0].box, good[1].box)
        if pair and good[0].box.x2 <= width / 2 <= good[1].box.x1:
            return halves  # most films end here, and the whole of them is never searched
        with clock("prepare"):
            whole = prepare_single(pixels)
        with clock("detect"):
            seen = [found for found in self.cascade.detect_pair(whole) if self._is_knee(found)]
        if len(seen) == 2:
            columns = halves_between(width, seen[0].box, seen[1].box)
            return [self._view(pixels, c, found, clock) for c, found in zip(columns, seen, strict=True)]
        across = len(seen) == 1 and seen[0].box.x1 < width / 2 < seen[0].box.x2
        if halves and not across:
            if pair or not (seen or good):
                return halves
            seen = seen or good[:1]
        around = columns_around(seen[0].box, width) if seen else both
        if around == both:
            with clock("detect"):
                return [View(whole, 0, self._best(whole, seen[0] if seen else None))]
        return [self._view(pixels, around, seen[0], clock)]

    def _halves(self, pixels: np.ndarray, clock: Clock) -> list[View]:
        """Both halves of the field, searched together."""
        views = [View(self._prepared(pixels, c, clock), c[0], None) for c in split_bilateral(pixels.shape[1])]
        with clock("detect"):
            found = iter(self.cascade.detect([view.image for view in views if view.image.size]))
        return [replace(view, found=next(found)) if view.image.size else view for view in views]

    def _view(self, pixels: np.ndarray, columns: tuple[int, int], hint: Found, clock: Clock) -> View:
        """A single-knee image; where its own search fails, its knee is the ``hint``, in the field's pixels."""
        image = self._prepared(pixels, columns, clock)
        with clock("detect"):
            return View(image, columns[0], self._best(image, hint.shifted(-columns[0])) if image.size else None)

    def _prepared(self, pixels: np.ndarray, columns: tuple[int, int], clock: Clock) -> np.ndarray:
        with clock("prepare"):
            try:
                return prepare_single(pixels, columns)
            except NotARadiograph:
                return np.empty((0, 0), np.uint8)

    def _best(self, image: np.ndarray, hint: Found | None) -> Found | None:
        (found,) = self.cascade.detect([image])
        return found if self._is_knee(found) or hint is None else hint

    def _is_knee(self, found: Found | None) -> bool:
        return found is not None and found.score >= self.cascade.config.score2

    def _alone(
        self,
        pixels: np.ndarray,
        field: tuple[slice, slice],
        film: Radiograph,
        view: View,
        pair: Sequence[Side],
    ) -> list[DetectedKnee]:
        """A knee of no named side, alone; and, where another is expected, that it was not found.

        Position tells the side only where the file declares both knees: one knee on a wide film may be either.
        """
        knee, width = self._knee(pixels, film, field, view, UNKNOWN), film.pixels.shape[1]
        assert view.found is not None
        box = view.found.box.shifted(view.x + (field[1].start or 0))
        place = place_among_two(box, width, field[1], lively(pixels[field]), film.bilateral)
        if place is None:
            return [knee]
        sides = pair if film.bilateral and place.certain else (UNKNOWN, UNKNOWN)
        knees = [DetectedKnee(*side, film.rows_run_to_right, "not_found", "no_knee_like_region") for side in sides]
        knees[place.index] = replace(knee, side=sides[place.index][0], side_source=sides[place.index][1])
        return knees

    def _refused(self, film: Radiograph, side: Laterality | None, reason: str) -> DetectedKnee:
        known = UNKNOWN if in_conflict(film, side, 0) else single_side(film, side)
        return DetectedKnee(*known, film.rows_run_to_right, "rejected", reason)

    def _knee(
        self, pixels: np.ndarray, film: Radiograph, field: tuple[slice, slice], view: View, side: Side
    ) -> DetectedKnee:
        known, found = (*side, film.rows_run_to_right), view.found
        if found is None:
            return DetectedKnee(*known, "not_found", "no_knee_like_region")
        to_film = view.x + (field[1].start or 0), field[0].start or 0
        on_film = found.shifted(*to_film)
        sure = self._is_knee(found)
        reason = out_of_scope(on_film, pixels.shape, field, film.spacing_mm) if sure else "low_score"
        if reason is None and shows_implant(pixels, on_film.box):
            reason = "implant"
        if reason is None and found.score < SURE and self.cascade.leans(view.image, found):
            reason = "rotated"
        if reason:
            return DetectedKnee(*known, "rejected", reason, found.score)
        joint = main_joint(found.box, found.key_points)
        return DetectedKnee(
            *known,
            status="found",
            score=found.score,
            box=on_film.box,
            key_points=on_film.key_points,
            main_joint=joint.shifted(*to_film),
            crop=crop(view.image, joint),
        )


def _is_seen(knee: DetectedKnee) -> bool:
    """Whether it is there to be seen, be it of metal."""
    return knee.status == "found" or knee.reason == "implant"


def _is_clipped(film: np.ndarray, joint: Box) -> bool:
    """Whether much of a joint has its darkest or its brightest value, where what differed has become the same."""
    inside = crop(film, joint)
    return float(((inside == inside.min()) | (inside == inside.max())).mean()) > CLIPPED
