"""Trains the grader: AdamW, one cycle, an averaged copy of the weights; KL and OA from real knees, the rest from phantoms.

Checkpoints every epoch into ``--out`` and resumes from there; the last epoch writes ``grader.safetensors``.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch.nn import functional as F
from torch.utils.data import DataLoader

import kneeoa
from kneeoa.detection.detector import Detector
from kneeoa.grading.network import SiameseGrader
from kneeoa.grading.patches import Preprocessing, to_patches
from kneeoa.tasks import COMPARTMENT_TASKS, TASKS
from kneeoa.weights import Weights, read_weights, save_weights
from training.config import read_config
from training.data.joints import JointDataset, Source, phantom_joints, real_joints
from training.data.knee_kl import read_knee_kl
from training.losses import grading_loss
from training.metrics import ordinal_metrics

REAL = "real labels: public KL set, train part (Chen 2018, OAI baseline)"
SYNTHETIC = "synthetic labels: phantoms only"


@dataclass(frozen=True)
class GraderConfig:
    """One run's settings; see configs/grader.yaml for what each means."""

    patches: list[int]
    batch: int
    phantoms: int
    phantom_pool: int
    lr: float
    weight_decay: float
    warm_up: float
    clip: float
    ema: float
    gate: str
    dropout: float
    neighbours: float
    head_steps: int


def train(
    real: Source | None,
    held_out: Source | None,
    config: GraderConfig,
    out: Path,
    seed: int,
    start_from: Weights | None = None,
) -> Path:
    """Run or resume; returns the weights file. Without real knees the phantoms carry all eight labels."""
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    phantoms = phantom_joints(config.phantom_pool, seed, all_labels=real is None)
    source = real or phantoms
    network = SiameseGrader(config.gate, config.dropout).to(memory_format=torch.channels_last)
    if start_from:
        start_from.load_into(network)
    average = ModelEmaV3(network, decay=config.ema)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = len(config.patches) * (len(source) // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, steps, pct_start=config.warm_up)
    parts = {"network": network, "average": average, "optimiser": optimiser, "schedule": schedule}
    checkpoint, first = out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first = state.pop("epoch")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    for epoch in range(first, len(config.patches)):
        preprocessing = Preprocessing(patch=config.patches[epoch])
        main, extra = (JointDataset(s, preprocessing, seed=seed + i) for i, s in enumerate((source, phantoms)))
        main.epoch = extra.epoch = epoch
        generator = torch.Generator().manual_seed(seed + epoch)
        added = iter(
            DataLoader(extra, config.phantoms, sampler=torch.randint(len(extra), (steps * config.phantoms,)).tolist())
        )
        network.train()
        losses = []
        for joints, labels in DataLoader(main, config.batch, shuffle=True, drop_last=True, generator=generator):
            more_joints, more_labels = next(added)
            batch = torch.cat([joints, more_joints]).numpy()
            logits, _ = network(*to_patches(batch, preprocessing))
            loss = grading_loss(logits, torch.cat([labels, more_labels]), config.neighbours)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimiser.step()
            schedule.step()
            average.update(network)
            losses.append(loss.item())
        line = f"epoch {epoch + 1}/{len(config.patches)} loss {np.mean(losses):.4f}"
        if held_out is not None:
            line += f" val KL {kl_metrics(average.module, held_out, preprocessing)}"
        print(line, flush=True)
        torch.save({**{k: v.state_dict() for k, v in parts.items()}, "epoch": epoch + 1}, checkpoint)
    fit_compartment_heads(average.module, phantoms, Preprocessing(patch=config.patches[-1]), config.head_steps, seed)
    return export(average.module, config, out / "grader.safetensors", real_labels=real is not None)


def fit_compartment_heads(
    network: SiameseGrader, phantoms: Source, preprocessing: Preprocessing, steps: int, seed: int
) -> None:
    """Refit the six heads on the finished network's features of phantoms; everything else stays as it is.

    Phantoms are few in each batch, so that they do not shape what real knees are graded by; the heads need more of them.
    """
    torch.manual_seed(seed)
    network.eval()
    features, labels = [], []
    with torch.no_grad():
        for joints, truth in DataLoader(JointDataset(phantoms, preprocessing, seed=seed), 32):
            features.append(network.features(*to_patches(joints.numpy(), preprocessing))[0])
            labels.append(truth)
    fused, truth = torch.cat(features), torch.cat(labels)
    heads = torch.nn.ModuleDict({task.name: network.heads[task.name] for task in COMPARTMENT_TASKS}).train()
    optimiser = torch.optim.AdamW(heads.parameters(), lr=1e-3, weight_decay=0.05)
    for _ in range(steps):
        picked = torch.randint(len(fused), (256,))
        columns = zip(TASKS, truth[picked].T, strict=True)
        losses = [F.cross_entropy(heads[t.name](fused[picked]), y) for t, y in columns if t in COMPARTMENT_TASKS]
        optimiser.zero_grad()
        torch.stack(losses).mean().backward()
        optimiser.step()
    network.eval()


@torch.inference_mode()
def kl_metrics(network: SiameseGrader, source: Source, preprocessing: Preprocessing) -> dict[str, float]:
    """KL metrics of a network on joints without augmentation."""
    network.eval()
    predicted, labels = [], []
    for joints, truth in DataLoader(JointDataset(source, preprocessing), 64):
        predicted.append(network(*to_patches(joints.numpy(), preprocessing))[0]["KL"].argmax(1))
        labels.append(truth[:, 0])
    return ordinal_metrics(torch.cat(labels).numpy(), torch.cat(predicted).numpy())


def export(network: SiameseGrader, config: GraderConfig, path: Path, real_labels: bool) -> Path:
    """Write the weights with all that serving needs to know of them."""
    provenance = {task.name: SYNTHETIC if task in COMPARTMENT_TASKS or not real_labels else REAL for task in TASKS}
    metadata = {
        "kind": "grader",
        "version": kneeoa.__version__,
        "architecture": {"gate": config.gate, "dropout": config.dropout},
        "preprocessing": asdict(Preprocessing(patch=config.patches[-1])),
        "provenance": provenance,
    }
    save_weights(path, network.state_dict(), metadata)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder in the form of the public KL set; phantoms alone without it")
    parser.add_argument("--detector", type=Path, help="detector weights: finds the key points of the crops")
    parser.add_argument("--init", type=Path, help="grader weights to start from, such as an earlier cycle's")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs/grader.yaml")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config, sources = read_config(GraderConfig, arguments.config), [None, None]
    if arguments.data:
        cascade = Detector.from_file(arguments.detector).cascade
        for i, split in enumerate(("train", "val")):
            sources[i] = real_joints(read_knee_kl(arguments.data, split), cascade)
    start_from = read_weights(arguments.init, "grader") if arguments.init else None
    print(train(*sources, config, arguments.out, arguments.seed, start_from))


if __name__ == "__main__":
    main()
