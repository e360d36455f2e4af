"""Joints in Parquet shards: the same as in memory, in whatever order they are asked for, and no image kept."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from training.config import read_config
from training.data.knee_kl import DataError
from training.fitting import shards
from training.fitting.grader_module import GraderConfig
from training.fitting.joint_dataset import JointDataset, phantom_joints
from training.fitting.shards import SAID, read_shards, stored_joints, write_shards
from training.fitting.train_grader import train

TINY = ROOT / "training/configs/tiny.yaml"


@pytest.fixture(scope="module")
def joints():
    return phantom_joints(10, seed=1, all_labels=True)


def test_what_was_stored_is_what_is_read(joints, tmp_path):
    assert write_shards(iter(joints), tmp_path, size=4) == 10
    stored = stored_joints(tmp_path)

    assert [file.name for file in sorted(tmp_path.iterdir())] == [f"0000{i}.parquet" for i in range(3)]
    assert len(stored) == 10
    for i in (7, 2, 9, 0):
        assert np.array_equal(stored[i].image, joints[i].image)
        assert (stored[i].box, stored[i].grades) == (joints[i].box, joints[i].grades)
    # An image is no part of a joint that was looked at: all of them at once are too many.
    assert sum(len(pickle.dumps(joint)) for joint in stored) < 10_000


def test_worker_processes_read_what_this_one_has_opened(joints, tmp_path):
    write_shards(joints, tmp_path, size=4)
    config = read_config(GraderConfig, TINY).preprocessing
    here, there = (JointDataset(source, config, seed=3) for source in (joints, stored_joints(tmp_path)))
    there[0]
    read = torch.utils.data.DataLoader(there, batch_size=5, num_workers=2)

    for (images, labels), start in zip(read, (0, 5), strict=True):
        wanted = [here[i] for i in range(start, start + 5)]
        assert np.array_equal(images, np.stack([image for image, _ in wanted]))
        assert np.array_equal(labels, np.stack([label for _, label in wanted]))


def test_a_grader_learns_the_same_from_shards_as_from_memory(joints, tmp_path):
    write_shards(joints, tmp_path / "shards")
    config = replace(
        read_config(GraderConfig, TINY), architecture={"network": "siamese", "backbone": "test_efficientnet"}
    )
    weights = [
        train(source, None, config, tmp_path / name, seed=0).read_bytes()
        for name, source in (("memory", joints), ("stored", stored_joints(tmp_path / "shards")))
    ]

    assert weights[0] == weights[1]


def test_the_command_writes_what_the_configuration_wants(monkeypatch, joints, tmp_path):
    """Reading and preparing knees has its own tests; here they are phantoms."""
    monkeypatch.setattr(shards, "read_parts", lambda *_: (joints[:6], joints[6:]))
    monkeypatch.setattr(shards, "each_real_joint", lambda knees, cascade, weak: iter(knees))
    shards.main(["--data", str(tmp_path), "--config", str(TINY), "--out", str(tmp_path / "out")])
    config = read_config(GraderConfig, TINY)

    assert [len(part) for part in read_shards(tmp_path / "out", config)] == [6, 4, config.phantoms]
    assert json.loads((tmp_path / "out" / SAID).read_text())["knees"] == {"train": 6, "val": 4, "synthetic": 8}
    with pytest.raises(DataError, match="differ in weak, phantoms"):
        read_shards(tmp_path / "out", replace(config, weak=True, phantoms=9))
    (tmp_path / "out" / SAID).unlink()  # as where it was cut off
    with pytest.raises(DataError, match="no complete shards"):
        read_shards(tmp_path / "out", config)
