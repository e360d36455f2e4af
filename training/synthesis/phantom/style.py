"""Looks: ranges from which a film draws its appearance. ``test`` lies outside ``train`` on purpose, to hold looks out."""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """Uniform ranges; densities in units of attenuation (about 1 for a whole knee), lengths in mm."""

    bone: Range = (0.26, 0.40)  # density of a thick spongy bone
    cortex: Range = (0.10, 0.20)  # added density of the rim
    cortex_mm: Range = (0.5, 0.9)  # rim near the joint
    texture: Range = (0.02, 0.07)  # trabecular contrast, share of the bone's density
    grain_mm: Range = (0.12, 0.22)  # width of a trabecula; it is drawn out along the shaft
    stretch: Range = (4.0, 9.0)
    mottle: Range = (0.015, 0.05)  # patchy density, share of the bone's density
    plate: Range = (0.12, 0.26)  # subchondral plate
    patella: Range = (0.15, 0.5)  # share of a bone's density
    tissue: Range = (0.35, 0.65)  # density of the soft tissue at its thickest
    girth: Range = (0.92, 1.35)  # soft tissue against a lean leg
    blur_mm: Range = (0.12, 0.30)
    noise: Range = (0.008, 0.025)
    scatter: Range = (0.05, 0.25)
    gamma: Range = (0.8, 1.3)
    shape_sd: float = 0.5
    spur_curl: Range = (-0.15, 0.35)


STYLES = {
    "train": Style(),
    "test": Style(
        bone=(0.38, 0.50),
        cortex=(0.07, 0.12),
        cortex_mm=(0.8, 1.2),
        texture=(0.07, 0.12),
        grain_mm=(0.22, 0.35),
        stretch=(2.0, 4.0),
        plate=(0.08, 0.14),
        tissue=(0.55, 0.85),
        blur_mm=(0.25, 0.45),
        noise=(0.018, 0.035),
        gamma=(0.65, 0.85),
        shape_sd=0.7,
        spur_curl=(-0.35, 0.0),
    ),
}
