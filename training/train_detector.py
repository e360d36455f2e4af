"""Trains the two levels of the detector on prepared single-knee images.

Wang et al. 2021: Adam, 1e-3 (level 1) and 1e-4 (level 2), loss weights (1, 0.5, 0) and (0.8, 0.6, 1.5). Levels are
trained one after the other; level 2's negatives are level 1's own false positives on the training images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from kneeoa.detection.cascade import Cascade, CascadeConfig
from kneeoa.detection.networks import LEVEL2_SIZE, WINDOW, Level1, Level2, as_input
from kneeoa.geometry import Box, crop
from torch import Tensor
from torch.nn import functional as F

from training.data.windows import NEGATIVE, View, Window, sample

MIX = ("negative",) * 3 + ("positive", "part") + ("landmark",) * 2  # MTCNN's 3 : 1 : 1 : 2
HARD_SHARE = 0.7  # of the largest detection losses in a batch (MTCNN)


@dataclass(frozen=True)
class LevelConfig:
    """One level's schedule: ``weights`` are α of detection, box and key points."""

    lr: float
    weights: tuple[float, float, float]
    steps: int
    batch: int = 500


LEVEL1 = LevelConfig(1e-3, (1.0, 0.5, 0.0), 600)
LEVEL2 = LevelConfig(1e-3, (0.8, 0.6, 1.5), 1200)


def detection_loss(
    logits: Tensor, boxes: Tensor, points: Tensor | None, windows: Sequence[Window], weights: Sequence[float]
) -> Tensor:
    """Sum of the three weighted losses; a target that is nan does not count. Shapes (n,), (n, 4), (n, 12)."""
    knee = torch.tensor([w.is_knee for w in windows])
    classified = F.binary_cross_entropy_with_logits(logits, knee.nan_to_num(), reduction="none")[~knee.isnan()]
    loss = weights[0] * classified.topk(max(int(HARD_SHARE * len(classified)), 1)).values.mean()
    for weight, output, target in (
        (weights[1], boxes, np.stack([w.box for w in windows])),
        (weights[2], points, np.stack([w.key_points for w in windows])),
    ):
        target = torch.from_numpy(target).float()
        used = ~target.isnan().any(dim=1)
        if output is not None and weight and used.any():
            loss = loss + weight * F.mse_loss(output[used], target[used], reduction="none").sum(dim=1).mean()
    return loss


def hard_negatives(level1: Level1, views: Sequence[View], config: CascadeConfig) -> list[np.ndarray]:
    """Crops that level 1 took for a knee and that are none: level 2's negatives, uint8 (48, 48)."""
    cascade, crops = Cascade(level1, Level2(), config), []
    for view in views:
        knee = view.key_points and view.key_points.knee_box()
        for box in (Box(*row.tolist()).squared() for row in cascade.propose(view.image)):
            if knee is None or box.iou(knee) < NEGATIVE:
                crops.append(crop(view.image, box, (LEVEL2_SIZE, LEVEL2_SIZE)))
    return crops


def train_level(
    network: Level1 | Level2, views: Sequence[View], config: LevelConfig, seed: int, hard: Sequence[np.ndarray] = ()
) -> None:
    """Train in place, one-cycle over ``config.steps`` batches."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, config.steps, pct_start=0.1)
    size = WINDOW if isinstance(network, Level1) else LEVEL2_SIZE
    knees = [view for view in views if view.key_points]
    network.train()
    for step in range(config.steps):
        windows = []
        for kind in rng.choice(MIX, config.batch):
            if kind == "negative" and len(hard) and rng.random() < 0.5:
                crop_ = hard[rng.integers(len(hard))]
                windows.append(Window(crop_, 0.0, np.full(4, np.nan), np.full(12, np.nan)))
            else:
                pool = views if kind == "negative" else knees
                windows.append(sample(rng, pool[rng.integers(len(pool))], size, kind))
        outputs = network(as_input(np.stack([w.pixels for w in windows])))
        if isinstance(network, Level1):
            outputs = outputs[0].flatten(), outputs[1].flatten(1), None
        loss = detection_loss(*outputs, windows, config.weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"{type(network).__name__} step {step + 1}/{config.steps} loss {loss.item():.4f}", flush=True)
    network.eval()
