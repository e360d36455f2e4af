"""From a decoded radiograph to one `DetectedKnee` per expected knee: a knee never silently disappears."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from kneeoa.clock import Clock
from kneeoa.detection.cascade import Cascade, CascadeConfig, Found
from kneeoa.detection.networks import Level1, Level2
from kneeoa.geometry import crop, main_joint
from kneeoa.imaging.prepare import (
    SingleKnee,
    correct_polarity,
    half_sides,
    inverted,
    looks_bilateral,
    prepare_single,
    single_side,
    split_bilateral,
)
from kneeoa.imaging.radiograph import Radiograph
from kneeoa.messages import DetectedKnee, Message
from kneeoa.tasks import Laterality
from kneeoa.weights import Weights, WeightsError, read_weights

# A wide film shows a single knee if one of at least this size lies this close to its middle (shares of its width);
# on a bilateral film a knee's box takes about 0.24.
CENTRAL, SINGLE_SIDE = 0.12, 0.33
WIDTH_MM = (40.0, 140.0)  # W of an adult knee with a wide margin; 748 OAI knees lie in 62 … 101 mm


class Detector:
    """Finds the knees of films. Stateless after construction."""

    def __init__(self, weights: Weights) -> None:
        stored = weights.metadata["preprocessing"]
        unknown = set(stored) ^ set(asdict(CascadeConfig()))
        if unknown:
            raise WeightsError(f"preprocessing of these weights and of this code differ in {sorted(unknown)}")
        self.cascade = Cascade(Level1(), Level2(), CascadeConfig(**stored))
        for prefix in ("level1", "level2"):
            part = {k.removeprefix(prefix + "."): v for k, v in weights.tensors.items() if k.startswith(prefix)}
            Weights(part, weights.metadata, weights.sha256).load_into(getattr(self.cascade, prefix))
        self.identity = weights.identity

    @classmethod
    def from_file(cls, path: Path) -> "Detector":
        return cls(read_weights(path, "detector"))

    def detect(
        self, film: Radiograph, side: Laterality | None = None, clock: Clock | None = None
    ) -> tuple[Message, list[DetectedKnee]]:
        """Facts about the film and its knees, image left first.

        Parameters
        ----------
        film : Radiograph
        side : Laterality, optional
            What the requester knows of a single-knee film; the file's own statement wins.
        clock : Clock, optional
            Is told how long the stages ``prepare`` and ``detect`` take.

        Raises
        ------
        NotARadiograph
            If the film has no contrast or is too small.
        """
        clock = clock or Clock()
        with clock("prepare"):
            pixels, rule = correct_polarity(film.pixels, film.polarity)
        layout, knees = self._look(pixels, film, side, clock)
        if not any(knee.status == "found" for knee in knees):
            # A wrong tag or a misread background: a film whose knees show up only when inverted is an inverted film.
            other_layout, others = self._look(inverted(pixels), film, side, clock)
            if any(knee.status == "found" for knee in others):
                layout, knees, rule = other_layout, others, "inverted_to_find_knees"
        facts = {
            "width": film.pixels.shape[1],
            "height": film.pixels.shape[0],
            "spacing_mm": film.spacing_mm and list(film.spacing_mm),
            "source": film.source,
            "transfer_syntax": film.transfer_syntax,
            "bits": film.bits,
            "polarity": rule,
            "layout": layout,
            "warnings": ["polarity_overridden"] if rule == "inverted_to_find_knees" else [],
        }
        return facts, knees

    def _look(
        self, pixels: np.ndarray, film: Radiograph, side: Laterality | None, clock: Clock
    ) -> tuple[str, list[DetectedKnee]]:
        """Layout and knees of a film in one polarity."""
        height, width = pixels.shape
        with clock("prepare"):
            whole = SingleKnee(prepare_single(pixels), 0, *single_side(film, side))
        with clock("detect"):
            found = self.cascade.detect(whole.image)
        if not looks_bilateral(height, width) or self._is_single(found, width):
            return "single", [self._knee(film, whole, found)]
        halves = zip(split_bilateral(width), half_sides(film), strict=True)
        with clock("prepare"):
            views = [SingleKnee(prepare_single(pixels, columns), columns[0], *known) for columns, known in halves]
        with clock("detect"):
            return "bilateral", [self._knee(film, view, self.cascade.detect(view.image)) for view in views]

    def _is_single(self, found: Found | None, width: int) -> bool:
        if found is None or found.score < self.cascade.config.score2:
            return False
        return abs(found.box.centre[0] / width - 0.5) < CENTRAL and found.box.width > SINGLE_SIDE * width

    def _knee(self, film: Radiograph, view: SingleKnee, found: Found | None) -> DetectedKnee:
        known = view.side, view.side_source, film.rows_run_to_right
        if found is None:
            return DetectedKnee(*known, "not_found", "no_knee_like_region")
        reason = self._rejection(found, film.spacing_mm)
        if reason:
            return DetectedKnee(*known, "rejected", reason, found.score)
        joint = main_joint(found.box, found.key_points)
        dx = view.x_offset
        return DetectedKnee(
            *known,
            status="found",
            score=found.score,
            box=found.box.shifted(dx),
            key_points=found.key_points.shifted(dx),
            main_joint=joint.shifted(dx),
            crop=crop(view.image, joint),
        )

    def _rejection(self, found: Found, spacing_mm: tuple[float, float] | None) -> str | None:
        if found.score < self.cascade.config.score2:
            return "low_score"
        (x, y), points = found.key_points.as_array().T, found.key_points
        ordered = x[0] < x[1] < x[2] and x[3] < x[4] < x[5] and y[1] < min(y[0], y[2]) and y[4] < min(y[3], y[5])
        if not ordered or not 0.4 < points.width / found.box.width < 1.2 or max(y[0], y[2]) > max(y[3], y[5]):
            return "implausible_key_points"
        if spacing_mm and not WIDTH_MM[0] < points.width * spacing_mm[1] < WIDTH_MM[1]:
            return "implausible_size"
        return None
