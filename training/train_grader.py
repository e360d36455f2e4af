"""Trains a grader as a config says; KL and OA from real knees, the six compartment grades from synthetic ones where need be.

Lightning keeps ``--out``: ``last.ckpt`` after every epoch (a second call goes on from there), TensorBoard's and a CSV log;
the last epoch writes ``grader.safetensors``. Several GPUs: ``torchrun -m training.train_grader …``.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from timm.models import load_state_dict

import kneeoa
from kneeoa.detection.detector import Detector
from kneeoa.grading.network import JointGrader, build_network
from kneeoa.grading.patches import Preprocessing
from kneeoa.tasks import TASKS
from kneeoa.weights import WeightsError, save_weights
from training.config import read_config
from training.data.joints import Source, phantom_joints, real_joints
from training.data.knee_kl import read_knee_kl
from training.grader_module import GraderConfig, GraderModule

SYNTHETIC = "synthetic labels: phantoms"


def train(
    real: Source | None,
    held_out: Source | None,
    config: GraderConfig,
    out: Path,
    seed: int,
    init: Path | None = None,
    learned_from: str = "real labels",
) -> Path:
    """Run or resume; returns the weights file. Without real knees the phantoms carry all eight labels."""
    seed_everything(seed, workers=True, verbose=False)
    out.mkdir(parents=True, exist_ok=True)
    synthetic = phantom_joints(config.phantoms, seed, all_labels=real is None)
    network = build_network(**config.architecture)
    if init:
        start_from(network, init)
    module = GraderModule(network, config, real or synthetic, synthetic, held_out or synthetic[: config.batch], seed)
    callbacks: list[Callback] = [ModelCheckpoint(out, "last", save_last=False, enable_version_counter=False)]
    if config.average:
        callbacks.append(EMAWeightAveraging(decay=config.average))
    trainer = Trainer(
        max_epochs=config.epochs,
        precision=config.precision,  # type: ignore[arg-type]
        callbacks=callbacks,
        logger=[TensorBoardLogger(out, "", "tensorboard"), CSVLogger(out, "", "log")],
        gradient_clip_val=config.clip,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=20,
    )
    last = out / "last.ckpt"
    trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    # The checkpoint holds the averaged weights; a run that was finished before leaves the others in the module.
    module.load_state_dict(torch.load(last, weights_only=True)["state_dict"])
    labelled = {name for joint in real or () for name in joint.grades}
    provenance = {task.name: learned_from if task.name in labelled else SYNTHETIC for task in TASKS}
    return export(network, config, provenance, out / "grader.safetensors")


def start_from(network: JointGrader, path: Path) -> None:
    """Load a grader's weights, or a backbone's alone in timm's names (ImageNet's, for instance; its classifier is left).

    Raises
    ------
    WeightsError
        If they do not fit.
    """
    tensors = load_state_dict(str(path), weights_only=True)
    whole = any(name.startswith("backbone.") for name in tensors)
    kept = {name: value.float() for name, value in tensors.items() if whole or not name.startswith("fc.")}
    try:
        (network if whole else network.backbone).load_state_dict(kept)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit this architecture: {error}") from None


def export(network: JointGrader, config: GraderConfig, provenance: dict[str, str], path: Path) -> Path:
    """Write the weights with all that serving needs to know of them."""
    metadata = {
        "kind": "grader",
        "version": kneeoa.__version__,
        "architecture": config.architecture,
        "preprocessing": asdict(Preprocessing(patch=config.patch)),
        "provenance": provenance,
        "temperatures": {},
    }
    save_weights(path, network.state_dict(), metadata)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder in the form of the public KL set; phantoms alone without it")
    parser.add_argument("--detector", type=Path, help="detector weights: finds the key points of the crops")
    parser.add_argument("--init", type=Path, help="weights to start from: an earlier grader's, or a timm backbone's")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs/best/siamese.yaml")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    config, sources = read_config(GraderConfig, given.config), [None, None]
    if given.data:
        cascade = Detector.from_file(given.detector).cascade
        for i, split in enumerate(("train", "val")):
            sources[i] = real_joints(read_knee_kl(given.data, split), cascade)
    print(train(*sources, config, given.out, given.seed, given.init))


if __name__ == "__main__":
    main()
