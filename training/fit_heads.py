"""Fits the six compartment heads of a finished grader to synthetic features: phantoms and lesions drawn into real knees.

Synthetic knees are few in a grader's training, so that they do not shape what real knees are graded by; its heads need more
of them. The backbone, the gate, KL and OA stay as they are, to the last bit.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader
from kneeoa.grading.patches import to_patches
from kneeoa.tasks import COMPARTMENT_TASKS, TASKS
from kneeoa.weights import read_weights, save_weights
from training.data.drawn import lesion_joints, substrates
from training.data.joints import UNLABELLED, JointDataset, Source, phantom_joints
from training.data.knee_kl import read_knee_kl
from training.evaluate import WEIGHTS
from training.train_grader import DRAWN


@torch.inference_mode()
def features_of(grader: Grader, source: Source, seed: int | None) -> tuple[Tensor, Tensor]:
    """Fused vectors float (n, c) and labels int64 (n, 8); augmented where a seed is given."""
    features, labels = [], []
    for joints, truth in tqdm(DataLoader(JointDataset(source, grader.config, seed), 32), disable=None):
        patches = to_patches(joints.to(grader.device), grader.config)
        features.append(grader.network.features(grader.network.maps(*patches))[0].cpu())
        labels.append(truth)
    return torch.cat(features).clone(), torch.cat(labels)


def fit(heads: torch.nn.ModuleDict, features: Tensor, labels: Tensor, steps: int) -> None:
    """Train the six heads in place, one cycle of AdamW over ``steps`` batches of 256."""
    own = torch.nn.ModuleDict({task.name: heads[task.name] for task in COMPARTMENT_TASKS}).train()
    optimiser = torch.optim.AdamW(own.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    for _ in range(steps):
        picked = torch.randint(len(features), (256,))
        columns = zip(TASKS, labels[picked].T, strict=True)
        losses = [
            F.cross_entropy(own[task.name](features[picked]), y, ignore_index=UNLABELLED)
            for task, y in columns
            if task in COMPARTMENT_TASKS
        ]
        optimiser.zero_grad()
        torch.stack(losses).mean().backward()
        optimiser.step()
        schedule.step()
    own.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--grader", type=Path, required=True, help="weights to start from")
    parser.add_argument("--phantoms", type=int, default=2000)
    parser.add_argument("--lesions", type=int, default=4000)
    parser.add_argument("--more-knees", type=int, default=600, help="to draw into, besides the landmarked ones")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    weights, grader = read_weights(given.grader, "grader"), Grader.from_file(given.grader)
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    knees = substrates(read_knee_kl(given.data, "train"), detector.cascade, given.more_knees, given.seed)
    drawn = [*phantom_joints(given.phantoms, given.seed), *lesion_joints(knees, given.lesions, given.seed)]
    fit(grader.network.heads, *features_of(grader, drawn, given.seed), given.steps)
    provenance = weights.metadata["provenance"] | {task.name: DRAWN for task in COMPARTMENT_TASKS}
    save_weights(given.out, grader.network.state_dict(), weights.metadata | {"provenance": provenance})
    print(given.out)


if __name__ == "__main__":
    main()
