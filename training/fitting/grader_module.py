"""What Lightning needs to train a grader: batches, losses, metrics, and the schedule as a list of phases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, Sampler
from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa

from kneeoa.grading.grader import Grader
from kneeoa.grading.network import JointGrader
from kneeoa.grading.patches import Preprocessing, to_patches
from kneeoa.tasks import TASKS
from training.fitting.joint_dataset import UNLABELLED, JointDataset, Source
from training.fitting.losses import grade_weights, grading_loss, teaching_loss
from training.fitting.weak_labels import osteophyte_loss


@dataclass(frozen=True)
class Phase:
    """Some epochs at one learning rate; ``heads`` trains all but the backbone, which then stays as it is."""

    epochs: int
    lr: float
    train: str = "all"


@dataclass(frozen=True)
class GraderConfig:
    """One run's settings; configs/best/siamese.yaml says what each means."""

    architecture: dict[str, Any]
    patch: int
    batch: int
    phases: list[dict[str, Any]]
    schedule: str
    optimiser: str
    weight_decay: float
    neighbours: float
    normalise: dict[str, list[float]] = field(default_factory=dict)
    synthetic: int = 0
    clip: float | None = None
    average: float | None = None
    warm_up: float = 0.1
    precision: str = "32-true"
    workers: int = 0
    phantoms: int = 0
    lesions: int = 0
    balance: float = 0.0
    weak: bool = False
    taught: float = 0.0
    emphasis: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("schedule", SCHEDULES), ("optimiser", OPTIMISERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {sorted(known)}")

    @property
    def epochs(self) -> int:
        return sum(phase["epochs"] for phase in self.phases)

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(patch=self.patch, **{name: tuple(values) for name, values in self.normalise.items()})

    def phase(self, epoch: int) -> Phase:
        """The phase an epoch (from 0) belongs to."""
        for phase in (Phase(**p) for p in self.phases):
            epoch -= phase.epochs
            if epoch < 0:
                return phase
        raise IndexError("epoch lies after the last phase")


SCHEDULES = ("constant", "one_cycle")
OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Share(Sampler):
    """One process's part of what is drawn for all ``processes``: a step of all of them has the knees of one with the whole batch.

    Lightning's own sampler would draw no more synthetic knees than there are, and other ones after an interruption.
    """

    def __init__(self, drawn: RandomSampler, rank: int, processes: int) -> None:
        self.drawn, self.rank, self.processes = drawn, rank, processes
        self._began: Tensor | None = None

    def __len__(self) -> int:
        return len(self.drawn) // self.processes

    def __iter__(self) -> Iterator[int]:
        # Lightning begins an epoch twice where it goes on from a checkpoint.
        if self._began is None:
            self._began = self.drawn.generator.get_state()
        self.drawn.generator.set_state(self._began)
        return islice(self.drawn, self.rank, len(self) * self.processes, self.processes)


class GraderModule(LightningModule):
    """Trains a `JointGrader` on real joints and, where given, a few synthetic ones in every batch.

    ``teachers`` grade what the network is shown, cut and augmented alike; it learns from their probabilities besides the labels
    (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent").
    """

    def __init__(
        self,
        network: JointGrader,
        config: GraderConfig,
        real: Source,
        synthetic: Source,
        held_out: Source,
        seed: int,
        teachers: Sequence[Grader] = (),
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.config, self.seed, self.teachers = config, seed, teachers
        self.preprocessing = config.preprocessing
        self.real, self.synthetic, self.held_out = real, synthetic, held_out
        known = torch.from_numpy(np.stack([joint.labels() for joint in (*real, *synthetic)]))
        self.weights = grade_weights(known, config.balance) if config.balance else None
        tasks = [t for t in TASKS if t.name in network.heads]
        self.top1 = torch.nn.ModuleDict({t.name: MulticlassAccuracy(t.grades, average="micro") for t in tasks})
        self.kappa = torch.nn.ModuleDict({t.name: MulticlassCohenKappa(t.grades, weights="quadratic") for t in tasks})

    def _logits(self, joints: Tensor) -> dict[str, Tensor]:
        patches = (p.contiguous(memory_format=torch.channels_last) for p in to_patches(joints, self.preprocessing))
        return self.network(*patches)[0]

    def train_dataloader(self) -> CombinedLoader:
        """Batches of this epoch: the same for the same seed and epoch, so that a resumed run goes on as if never stopped."""
        epoch, generator = self.current_epoch, torch.Generator().manual_seed(self.seed + self.current_epoch)
        workers = self.config.workers

        def dataset(source: Source, offset: int) -> JointDataset:
            return JointDataset(source, self.preprocessing, self.seed + offset, epoch)

        def share(drawn: RandomSampler) -> Share:
            return Share(drawn, self.global_rank, self.trainer.world_size)

        loaders = {
            "real": DataLoader(
                dataset(self.real, 0),
                self.config.batch,
                sampler=share(RandomSampler(self.real, generator=generator)),
                drop_last=True,
                num_workers=workers,
                generator=torch.Generator(),  # of its own: how often it is asked must not change the order
            )
        }
        if self.config.synthetic:
            number = self.config.synthetic * (len(self.real) // self.config.batch)
            drawn = RandomSampler(self.synthetic, replacement=True, num_samples=number, generator=generator)
            loaders["synthetic"] = DataLoader(
                dataset(self.synthetic, 1), self.config.synthetic, sampler=share(drawn), num_workers=workers
            )
        return CombinedLoader(loaders, "min_size")

    def val_dataloader(self) -> DataLoader:
        return DataLoader(JointDataset(self.held_out, self.preprocessing), 2 * self.config.batch)

    def on_train_epoch_start(self) -> None:
        frozen = self.config.phase(self.current_epoch).train == "heads"
        self.network.backbone.requires_grad_(not frozen)
        self.network.backbone.train(not frozen)  # else its batch-norm statistics would drift

    def training_step(self, batch: dict[str, list[Tensor]], _: int) -> Tensor:
        joints, labels = (torch.cat(parts) for parts in zip(*batch.values(), strict=True))
        logits = self._logits(joints)
        emphasis = self.config.emphasis
        loss = grading_loss(logits, labels, self.config.neighbours, self.weights, emphasis)
        if self.config.weak and (evidence := osteophyte_loss(logits, labels)) is not None:
            loss = loss + evidence / len(logits)
        if self.teachers:
            taught = teaching_loss(logits, [teacher.probabilities(joints) for teacher in self.teachers], emphasis)
            loss = loss + self.config.taught * (taught - loss)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(joints), sync_dist=True)
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        joints, labels = batch
        logits = self._logits(joints)
        for task, column in zip(TASKS, labels.T, strict=True):
            known = column != UNLABELLED
            if task.name in logits and known.any():
                for kind, metrics in (("top1", self.top1), ("kappa", self.kappa)):
                    metrics[task.name].update(logits[task.name][known].float(), column[known])
                    self.log(f"val/{task.name}_{kind}", metrics[task.name], prog_bar=task.name == "KL", on_epoch=True)

    def configure_optimizers(self) -> dict[str, Any]:
        phases = [Phase(**p) for p in self.config.phases]
        optimiser = OPTIMISERS[self.config.optimiser](
            self.network.parameters(), lr=phases[0].lr, weight_decay=self.config.weight_decay
        )
        if self.config.schedule == "one_cycle":
            steps = int(self.trainer.estimated_stepping_batches)
            cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, phases[0].lr, steps, pct_start=self.config.warm_up)
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
        last = self.config.epochs - 1
        steps_down = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda epoch: self.config.phase(min(epoch, last)).lr / phases[0].lr
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": steps_down, "interval": "epoch"}}
