"""Trains a grader as a config says; KL and OA from real knees, the six compartment grades from synthetic ones where need be.

Lightning keeps ``--out``: ``last.ckpt`` after every epoch (a second call goes on from there), TensorBoard's and a CSV log;
the end writes ``grader.safetensors`` and ``training.png``. Several GPUs, or machines (docs/scale.md):
``torchrun --nproc-per-node=2 -m training train-grader …``; ``batch`` is each process's.
"""

import argparse
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from timm.models import adapt_input_conv, load_state_dict

import kneeoa
from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader
from kneeoa.grading.network import JointGrader, build_network
from kneeoa.grading.patches import Preprocessing
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import COMPARTMENT_TASKS, TASKS
from kneeoa.weights import WeightsError, read_weights, save_weights
from training.config import CONFIGS, ConfigError, read_config
from training.data.knee_kl import DataError
from training.evaluation.report import draw_log
from training.fitting.grader_module import GraderConfig, GraderModule
from training.fitting.joint_dataset import Source, phantom_joints
from training.fitting.precision import chosen, depthwise_in_float
from training.fitting.prepared import prepared
from training.fitting.shards import read_shards

SYNTHETIC = "synthetic labels: phantoms"
DRAWN = SYNTHETIC + ", and lesions drawn into real knees of KL 0–1"
WEAK = "weak labels: derived from KL and joint-space width"


def train(
    real: Source | None,
    held_out: Source | None,
    config: GraderConfig,
    out: Path,
    seed: int,
    init: Path | None = None,
    learned_from: str = "real labels",
    synthetic: Source | None = None,
    teachers: Sequence[Grader] = (),
) -> Path:
    """Run or resume; returns the weights file. Without real knees the phantoms carry all eight labels.

    ``synthetic`` knees are the config's phantoms where None.
    """
    seed_everything(seed, workers=True, verbose=False)
    out.mkdir(parents=True, exist_ok=True)
    if synthetic is None:
        synthetic = phantom_joints(config.phantoms, seed, all_labels=real is None)
    network = build_network(**config.architecture, channels=config.preprocessing.channels)
    precision = chosen(config.precision)
    if precision == "bf16-mixed":
        depthwise_in_float(network)
    if init:
        start_from(network, init, config.preprocessing)
    judged = held_out or synthetic[: config.batch]
    module = GraderModule(network, config, real or synthetic, synthetic, judged, seed, teachers)
    callbacks: list[Callback] = [ModelCheckpoint(out, "last", save_last=False, enable_version_counter=False)]
    if config.average:
        # What came before the warm-up's end would spoil the average for epochs.
        together = config.batch * int(os.environ.get("WORLD_SIZE", 1))
        warm = int(config.warm_up * config.epochs * (len(module.real) // together))
        callbacks.append(EMAWeightAveraging(decay=config.average, update_starting_at_step=warm))
    trainer = Trainer(
        max_epochs=config.epochs,
        precision=precision,  # type: ignore[arg-type]
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", 0)) or "auto",  # torchrun's processes; on CPUs auto means one
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),  # torchrun's machines
        use_distributed_sampler=False,  # each process takes its `Share`, and judges all held-out knees
        strategy="ddp_find_unused_parameters_true" if "LOCAL_WORLD_SIZE" in os.environ else "auto",  # some lack a task
        callbacks=callbacks,
        logger=[TensorBoardLogger(out, "", "tensorboard"), CSVLogger(out, "log")],
        gradient_clip_val=config.clip,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=20,
    )
    last = out / "last.ckpt"
    if len(module.real) < config.batch:
        raise ConfigError(f"batch: {config.batch} is more than the {len(module.real)} knees there are to train on")
    trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    weights = out / "grader.safetensors"
    if not trainer.is_global_zero:
        return weights
    # The checkpoint holds the averaged weights; a run that was finished before leaves the others in the module.
    module.load_state_dict(torch.load(last, weights_only=True)["state_dict"])
    draw_log(out / "log").savefig(out / "training.png", dpi=110)
    labelled = {name for joint in real or () for name in joint.grades}
    return export(network, config, provenance_of(labelled, learned_from, config), weights)


def provenance_of(labelled: Collection[str], learned_from: str, config: GraderConfig) -> dict[str, str]:
    """By task: what its labels were."""
    drawn = DRAWN if config.lesions else SYNTHETIC
    weakly = f"{WEAK}; {drawn}" if config.weak else drawn
    return {
        task.name: learned_from if task.name in labelled and not (config.weak and task in COMPARTMENT_TASKS) else weakly
        for task in TASKS
    }


def start_from(network: JointGrader, path: Path, preprocessing: Preprocessing) -> None:
    """Load a grader's weights, or a backbone's alone in timm's names (ImageNet's, for instance; its classifier is left).

    A backbone of three input channels becomes one of a single channel by their sum.

    Raises
    ------
    WeightsError
        If they do not fit the architecture, or were trained on joints prepared in another way; the patch may differ.
    """
    if not path.is_file():
        raise WeightsError(f"there is no {path}")
    tensors = load_state_dict(str(path), weights_only=True)
    whole = any(name.startswith("backbone.") for name in tensors)
    if whole and path.suffix == ".safetensors":
        theirs = read_weights(path, "grader").metadata["preprocessing"]
        mine = json.loads(json.dumps(asdict(replace(preprocessing, patch=theirs.get("patch", 0)))))
        if differing := sorted(name for name in mine | theirs if mine.get(name) != theirs.get(name)):
            raise WeightsError(f"{path} was trained on joints prepared differently: {', '.join(differing)}")
    facts = network.backbone.pretrained_cfg
    kept = {n: v.float() for n, v in tensors.items() if whole or not n.startswith(f"{facts['classifier']}.")}
    stem = f"{facts['first_conv']}.weight"
    if not whole and stem in kept:
        kept[stem] = adapt_input_conv(preprocessing.channels, kept[stem])
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
        "preprocessing": asdict(config.preprocessing),
        "provenance": provenance,
        "temperatures": {},
    }
    save_weights(path, network.state_dict(), metadata)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, nargs="+", help="folders in the form of the public KL set; else phantoms alone"
    )
    parser.add_argument("--detector", type=Path, default=WEIGHTS / "detector.safetensors", help="finds the key points")
    parser.add_argument("--source", default="", help="where the real labels come from, for the weights' provenance")
    parser.add_argument("--teacher", type=Path, nargs="+", default=[], help="graders whose probabilities it learns too")
    parser.add_argument("--init", type=Path, help="weights to start from: an earlier grader's, or a timm backbone's")
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder that keeps the prepared joints for the next run; empty it when the data change",
    )
    told = "what `python -m training shards` wrote of such folders, instead of --data: read as it is needed"
    parser.add_argument("--shards", type=Path, help=told)
    parser.add_argument("--config", type=Path, default=CONFIGS / "best/siamese.yaml")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--per-knee", action="store_true", help="people may be in train and val, as in the paper's split"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    real, held_out, synthetic = None, None, None
    learned = "real labels" + (f": {given.source}" if given.source else "")
    try:
        config = read_config(GraderConfig, given.config)
        if given.shards:
            real, held_out, synthetic = read_shards(given.shards, config)
        elif given.data:
            detector = Detector.from_file(given.detector)
            settings = given.per_knee, config.weak, config.phantoms, config.lesions, given.seed
            real, held_out, synthetic = prepared(given.cache, given.data, detector, *settings)
        teachers = [Grader.from_file(path) for path in given.teacher]
        print(train(real, held_out, config, given.out, given.seed, given.init, learned, synthetic, teachers))
    except (ConfigError, DataError, WeightsError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
