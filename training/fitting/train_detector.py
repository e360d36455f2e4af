"""Trains the two levels of the detector on composed and phantom films.

Wang et al. 2021: Adam, loss weights (1, 0.5, 0) and (0.8, 0.6, 1.5), 1e-3 for level 1. Level 2's 1e-4 goes with far more
steps than ours; both take one cycle. Its negatives are level 1's own false positives on the training films.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import kneeoa
from kneeoa.detection.cascade import Cascade, CascadeConfig
from kneeoa.detection.detector import Detector
from kneeoa.detection.networks import LEVEL2_SIZE, WINDOW, Level1, Level2, as_input
from kneeoa.geometry import crop
from kneeoa.weights import WeightsError, save_weights
from training.config import CONFIGS, ConfigError, read_config
from training.data.key_points import key_points_of
from training.data.knee_kl import DataError, read_knee_kl
from training.fitting.mtcnn_samples import NEGATIVE, Window, sample
from training.synthesis.phantom import draw_film
from training.synthesis.single_knee_images import View, compose_views, film_views, with_some_without

MIX = ("negative",) * 3 + ("positive", "part") + ("landmark",) * 2  # MTCNN's 3 : 1 : 1 : 2
ALPHA = {Level1: (1.0, 0.5, 0.0), Level2: (0.8, 0.6, 1.5)}  # weights of detection, box and key points
HARD_SHARE = 0.7  # of the largest detection losses in a batch (MTCNN)


@dataclass(frozen=True)
class DetectorConfig:
    """One run's settings; see configs/best/detector.yaml for what each means."""

    films: int
    self_labelled: int
    phantoms: int
    steps: list[int]
    batch: int
    lr: float


def detection_loss(
    logits: Tensor, boxes: Tensor, points: Tensor | None, windows: Sequence[Window], weights: Sequence[float]
) -> Tensor:
    """Sum of the three weighted losses; a target that is nan does not count. Shapes (n,), (n, 4), (n, 12)."""
    knee = torch.tensor([w.is_knee for w in windows])
    classified = F.binary_cross_entropy_with_logits(logits, knee.nan_to_num(), reduction="none")[~knee.isnan()]
    loss = weights[0] * classified.topk(max(int(HARD_SHARE * len(classified)), 1)).values.mean()
    for weight, output, wanted in (
        (weights[1], boxes, np.stack([w.box for w in windows])),
        (weights[2], points, np.stack([w.key_points for w in windows])),
    ):
        target = torch.from_numpy(wanted).float()
        used = ~target.isnan().any(dim=1)
        if output is not None and weight and used.any():
            loss = loss + weight * F.mse_loss(output[used], target[used], reduction="none").sum(dim=1).mean()
    return loss


def hard_negatives(level1: Level1, views: Sequence[View], config: CascadeConfig) -> list[np.ndarray]:
    """Crops that level 1 took for a knee and that are none: level 2's negatives, uint8 (48, 48)."""
    cascade, crops = Cascade(level1, Level2(), config), []
    for view in views:
        knee = view.key_points.knee_box() if view.key_points else None
        for box in (box.squared() for box in cascade.propose(view.image[None])[0]):
            if knee is None or box.iou(knee) < NEGATIVE:
                crops.append(crop(view.image, box, (LEVEL2_SIZE, LEVEL2_SIZE)))
    return crops


def train_level(
    network: Level1 | Level2,
    views: Sequence[View],
    config: DetectorConfig,
    steps: int,
    seed: int,
    hard: Sequence[np.ndarray] = (),
) -> None:
    """Train in place, one cycle over ``steps`` batches."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, steps, pct_start=0.1)
    size = WINDOW if isinstance(network, Level1) else LEVEL2_SIZE
    knees = [view for view in views if view.key_points]
    network.train()
    for step in range(steps):
        windows = []
        for kind in rng.choice(MIX, config.batch):
            if kind == "negative" and len(hard) and rng.random() < 0.5:
                crop_ = hard[int(rng.integers(len(hard)))]
                windows.append(Window(crop_, 0.0, np.full(4, np.nan), np.full(12, np.nan)))
            else:
                pool = views if kind == "negative" else knees
                windows.append(sample(rng, pool[int(rng.integers(len(pool)))], size, kind))
        outputs = network(as_input(np.stack([w.pixels for w in windows])))
        if isinstance(network, Level1):
            outputs = outputs[0].flatten(), outputs[1].flatten(1), None
        logits, boxes, points = outputs
        loss = detection_loss(logits, boxes, points, windows, ALPHA[type(network)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"{type(network).__name__} step {step + 1}/{steps} loss {loss.item():.4f}", flush=True)
    network.eval()


def training_views(
    data: Path | None, config: DetectorConfig, rng: np.random.Generator, start: Detector | None
) -> list[View]:
    """Composed films of landmarked knees and, labelled by ``start``, of others; phantom films."""
    views: list[View] = []
    if data:
        knees = read_knee_kl(data, "train")
        marked = {knee.name: knee.key_points for knee in knees if knee.key_points}
        views += compose_views(rng, [knee for knee in knees if knee.key_points], marked, config.films)
        if start:
            others = [knees[i] for i in rng.permutation(len(knees))[: 2 * config.self_labelled]]
            points = key_points_of(start.cascade, others) | marked
            views += compose_views(rng, others, points, config.self_labelled)
    for _ in range(config.phantoms):
        for view in film_views(draw_film(rng, spacing_mm=0.8)):
            views += with_some_without(rng, view)
    return views


def train(data: Path | None, config: DetectorConfig, out: Path, seed: int, start: Detector | None = None) -> Path:
    """Both levels, from nothing or from ``start``; returns the weights file. Without ``data``: from phantoms alone."""
    torch.manual_seed(seed)
    views = training_views(data, config, np.random.default_rng(seed), start)
    level1 = start.cascade.level1 if start else Level1()
    level2 = start.cascade.level2 if start else Level2()
    train_level(level1, views, config, config.steps[0], seed)
    hard = hard_negatives(level1, views, CascadeConfig())
    train_level(level2, views, config, config.steps[1], seed + 1, hard)
    out.mkdir(parents=True, exist_ok=True)
    real = "knees of the public KL set (train part) on composed films, landmarked or self-labelled, and phantoms"
    metadata = {
        "kind": "detector",
        "version": kneeoa.__version__,
        "architecture": {},
        "preprocessing": asdict(CascadeConfig()),
        "provenance": real if data else "phantoms only",
    }
    tensors = {
        f"{prefix}.{name}": tensor
        for prefix, level in (("level1", level1), ("level2", level2))
        for name, tensor in level.state_dict().items()
    }
    save_weights(out / "detector.safetensors", tensors, metadata)
    return out / "detector.safetensors"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder in the form of the public KL set; phantoms alone without it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--init", type=Path, help="detector weights to start from, and to label knees without landmarks"
    )
    parser.add_argument("--config", type=Path, default=CONFIGS / "best/detector.yaml")
    given = parser.parse_args(arguments)
    try:
        start = Detector.from_file(given.init) if given.init else None
        config = read_config(DetectorConfig, given.config)
        print(train(given.data, config, given.out, given.seed, start))
    except (ConfigError, DataError, WeightsError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
