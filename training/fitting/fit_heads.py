"""Fits the six compartment heads of a finished grader anew: to many synthetic knees, and to what KL says of real ones.

Synthetic knees are few in a grader's training, so that they do not shape what real knees are graded by; its heads need more
of them. The backbone, the gate, KL and OA stay as they are, to the last bit.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader, Member
from kneeoa.grading.patches import to_patches
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import COMPARTMENT_TASKS, KL
from kneeoa.weights import WeightsError, read_weights, save_weights
from training.config import CONFIGS, ConfigError, read_config
from training.data.knee_kl import DataError
from training.fitting.grader_module import GraderConfig
from training.fitting.joint_dataset import JointDataset, Source
from training.fitting.losses import grading_loss
from training.fitting.prepared import prepared
from training.fitting.train_grader import provenance_of
from training.fitting.weak_labels import osteophyte_loss

HALF = 128  # knees of each kind in a batch
LR = 2e-3


@torch.inference_mode()
def features_of(member: Member, source: Source, seed: int, views: int) -> tuple[Tensor, Tensor]:
    """Fused vectors float (views n, c) of differently augmented views and labels int64 (views n, 8)."""
    features, labels = [], []
    for view in range(views):
        loader = DataLoader(JointDataset(source, member.config, seed, epoch=view), 32)
        for joints, truth in tqdm(loader, disable=None):
            patches = to_patches(joints.to(member.device), member.config)
            features.append(member.network.features(*patches)[0].cpu())
            labels.append(truth)
    return torch.cat(features).clone(), torch.cat(labels)


def fit(
    heads: torch.nn.ModuleDict,
    synthetic: tuple[Tensor, Tensor],
    real: tuple[Tensor, Tensor],
    steps: int,
    neighbours: float,
) -> None:
    """Train the six heads in place, one cycle of AdamW over ``steps`` batches, half synthetic knees and half real ones.

    The knees are features (n, c) and labels (n, 8); of real ones, KL speaks for the osteophytes too.
    """
    own = torch.nn.ModuleDict({task.name: heads[task.name] for task in COMPARTMENT_TASKS}).train()
    optimiser = torch.optim.AdamW(own.parameters(), lr=LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, steps)
    for _ in range(steps):
        drawn = [torch.randint(len(features), (HALF,)) for features, _ in (synthetic, real)]
        features, labels = (
            torch.cat([part[picked] for part, picked in zip(parts, drawn, strict=True)])
            for parts in zip(synthetic, real, strict=True)
        )
        logits = {name: head(features) for name, head in own.items()}
        loss = grading_loss(logits, labels, neighbours)
        if (evidence := osteophyte_loss(logits, labels)) is not None:
            loss = loss + evidence / len(logits)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    own.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the form of the public KL set")
    parser.add_argument("--grader", type=Path, required=True, help="weights to start from")
    parser.add_argument("--config", type=Path, default=CONFIGS / "best/siamese.yaml")
    parser.add_argument("--cache", type=Path, help="as in train_grader")
    parser.add_argument("--views", type=int, default=2, help="of each knee, augmented differently")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--per-knee", action="store_true", help="as in train_grader")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.manual_seed(given.seed)
    try:
        weights, config = read_weights(given.grader, "grader"), read_config(GraderConfig, given.config)
        detector = Detector.from_file(WEIGHTS / "detector.safetensors")
        settings = given.per_knee, config.weak, config.phantoms, config.lesions, given.seed
        real, _, synthetic = prepared(given.cache, given.data, detector, *settings)
    except (ConfigError, DataError, WeightsError) as error:
        parser.error(str(error))
    (member,) = Grader(weights).members
    drawn, read = (features_of(member, source, given.seed, given.views) for source in (synthetic, real))
    fit(member.network.heads.requires_grad_(True), drawn, read, given.steps, config.neighbours)
    provenance = weights.metadata["provenance"] | {
        name: text
        for name, text in provenance_of([KL.name], "", config).items()
        if name in {t.name for t in COMPARTMENT_TASKS}
    }
    learned = {f"heads.{name}": value for name, value in member.network.heads.state_dict().items()}
    save_weights(given.out, weights.tensors | learned, weights.metadata | {"provenance": provenance})
    print(given.out)


if __name__ == "__main__":
    main()
