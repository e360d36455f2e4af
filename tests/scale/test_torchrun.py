"""Training in two processes: the loss of one with the doubled batch, and the same weights where one process was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from tests.conftest import ROOT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1")
EPOCHS, KNEES, BATCH = 8, 48, 4  # of each process
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # gloo


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """tiny.yaml, long enough to learn something and without dropout: what is left of chance is in the seed."""

    def written(batch: int) -> Path:
        settings = yaml.safe_load((ROOT / "training/configs/tiny.yaml").read_text())
        settings["architecture"]["dropout"] = 0.0
        settings |= {"batch": batch, "synthetic": batch // 4, "phantoms": KNEES, "schedule": "constant"}
        settings["phases"] = [{"epochs": EPOCHS, "lr": 1e-3}]
        path = tmp_path_factory.mktemp("config") / "c.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return written


def command(config: Path, out: Path, seed: int = 0) -> list[str]:
    return ["-m", "training", "train-grader", "--config", str(config), "--out", str(out), "--seed", str(seed)]


def losses(out: Path) -> pd.Series:
    """By epoch; the log of a process that was killed may lack its last."""
    logs = pd.concat(map(pd.read_csv, sorted(out.glob("log/*/metrics.csv"))))
    return logs.dropna(subset="loss").groupby("epoch")["loss"].last()


@pytest.fixture(scope="module")
def two(config, tmp_path_factory):
    """A run of two processes."""
    out = tmp_path_factory.mktemp("two")
    subprocess.run([*TORCHRUN, *command(config(BATCH), out)], check=True, cwd=ROOT, env=ENVIRONMENT)
    return out


def test_two_processes_learn_as_one_with_the_doubled_batch(two, config, tmp_path):
    """The knees of a step are the same, but batch norm sees half of them at a time."""
    for seed in range(3):
        out = tmp_path / str(seed)
        subprocess.run([sys.executable, *command(config(2 * BATCH), out, seed)], check=True, cwd=ROOT, env=ENVIRONMENT)
    alone = pd.concat([losses(tmp_path / str(seed)) for seed in range(3)], axis=1)
    together = losses(two)
    noise = alone.std(axis=1).max()
    print(f"\nloss by epoch, one process, mean of three seeds: {alone.mean(axis=1).round(3).tolist()}")
    print(f"two processes: {together.round(3).tolist()}; largest s.d. between seeds {noise:.3f}")

    assert len(together) == EPOCHS
    assert together.iloc[-1] < 0.95 * together.iloc[0]
    assert (together - alone.mean(axis=1)).abs().max() < noise


def test_a_killed_process_costs_an_epoch_and_nothing_else(two, config, tmp_path):
    out = tmp_path / "killed"
    run = subprocess.Popen([*TORCHRUN, *command(config(BATCH), out)], cwd=ROOT, env=ENVIRONMENT)
    while not (out / "last.ckpt").exists():
        assert run.poll() is None
        time.sleep(0.05)
    second = next(p for p in psutil.Process(run.pid).children() if p.environ().get("RANK") == "1")
    second.kill()

    assert run.wait() == 0
    assert len(list(out.glob("log/*"))) == 2  # it was started again
    after = losses(out)
    assert after.index[-1] == EPOCHS - 1
    assert after.tolist() == pytest.approx(losses(two)[after.index].tolist(), abs=1e-4)
    assert (out / "grader.safetensors").read_bytes() == (two / "grader.safetensors").read_bytes()
