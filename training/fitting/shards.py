"""Prepared joints on disk, as Parquet: what a grader learns from need not fit in memory.

``python -m training shards --data … --out FOLDER`` writes them as a configuration wants them; ``train-grader --shards FOLDER``
learns from them, in the same order and with the same result as from memory. A knee is a row group of its own: any one of them is
read without its neighbours, so shuffling, several processes and going on from a checkpoint are what they are for a list.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
from pyarrow import parquet

from kneeoa.detection.detector import Detector
from kneeoa.geometry import Box
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import TASKS
from training.config import CONFIGS, ConfigError, read_config
from training.data.knee_kl import DataError, read_parts
from training.fitting.grader_module import GraderConfig
from training.fitting.joint_dataset import UNLABELLED, Joint, Source, each_real_joint
from training.fitting.prepared import each_synthetic_joint

SHARD = 1024  # knees in a file
PARTS = ("train", "val", "synthetic")
SAID = "shards.json"  # written last: what the shards were made for
SCHEMA = pyarrow.schema(
    [("image", pyarrow.binary()), *((name, pyarrow.float64()) for name in ("x1", "y1", "x2", "y2"))]
    + [(task.name, pyarrow.int8()) for task in TASKS]
)


class StoredJoint(Joint):
    """A joint whose image, PNG, is read whenever it is asked for; box and grades are at hand."""

    file: Path
    group: int

    def __init__(self, file: Path, group: int, box: Box, grades: dict[str, int]) -> None:
        for name, value in (("file", file), ("group", group), ("box", box), ("grades", grades)):
            object.__setattr__(self, name, value)

    @property
    def image(self) -> np.ndarray:
        data = _opened(self.file).read_row_group(self.group, ["image"], use_threads=False)["image"][0].as_buffer()
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


@cache
def _opened(file: Path) -> parquet.ParquetFile:
    return parquet.ParquetFile(file, memory_map=True)  # no offset that processes would share


def write_shards(joints: Iterable[Joint], folder: Path, size: int = SHARD) -> int:
    """Joints as ``00000.parquet`` …, ``size`` in each, as they come; how many there were."""
    folder.mkdir(parents=True, exist_ok=True)
    left, number = iter(joints), 0
    while some := list(islice(left, size)):
        part, file = folder / "part", folder / f"{number // size:05}.parquet"
        with parquet.ParquetWriter(part, SCHEMA, compression="none") as writer:  # PNG is compressed
            for joint in some:
                image = cv2.imencode(".png", joint.image)[1].tobytes()
                row = {"image": image, **dict(zip(("x1", "y1", "x2", "y2"), joint.box.as_tuple(), strict=True))}
                row |= dict(zip((task.name for task in TASKS), joint.labels().tolist(), strict=True))
                writer.write_table(pyarrow.Table.from_pylist([row], SCHEMA))
        part.replace(file)
        number += len(some)
    return number


def stored_joints(folder: Path) -> Source:
    """Those of a folder, in the order in which they were written; their images stay there."""
    return [joint for file in sorted(folder.glob("*.parquet")) for joint in _stored(file)]


def _stored(file: Path) -> Iterator[StoredJoint]:
    names = [name for name in SCHEMA.names if name != "image"]
    for group, row in enumerate(parquet.read_table(file, columns=names).to_pylist()):
        box = Box(*(row[name] for name in ("x1", "y1", "x2", "y2")))
        grades = {task.name: row[task.name] for task in TASKS if row[task.name] != UNLABELLED}
        yield StoredJoint(file, group, box, grades)


def read_shards(folder: Path, config: GraderConfig) -> tuple[Source, Source, Source]:
    """The train, val and synthetic joints of a folder, as `training.fitting.prepared.prepared` has them.

    Raises
    ------
    DataError
        If its writing did not come to an end, or it was written for a configuration that wants other joints.
    """
    try:
        said = json.loads((folder / SAID).read_text())
    except (OSError, ValueError):
        raise DataError(f"{folder} holds no complete shards: write them with `python -m training shards`") from None
    if said["wanted"] != (wanted := _wanted(config)):
        differing = ", ".join(name for name in wanted if said["wanted"].get(name) != wanted[name])
        raise DataError(f"{folder} was written for another configuration; they differ in {differing}")
    learn, judge, synthetic = (stored_joints(folder / part) for part in PARTS)
    return learn, judge, synthetic


def _wanted(config: GraderConfig) -> dict[str, Any]:
    return {"weak": config.weak, "phantoms": config.phantoms, "lesions": config.lesions}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the form of the public KL set")
    parser.add_argument("--detector", type=Path, default=WEIGHTS / "detector.safetensors", help="finds the key points")
    parser.add_argument("--config", type=Path, default=CONFIGS / "best/siamese.yaml")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-knee", action="store_true", help="people may be in train and val")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        config = read_config(GraderConfig, given.config)
        cascade = Detector.from_file(given.detector).cascade
        learn, judge = read_parts(given.data, "val", given.per_knee)
    except (ConfigError, DataError) as error:
        parser.error(str(error))
    (given.out / SAID).unlink(missing_ok=True)
    for old in (file for part in PARTS for file in (given.out / part).glob("*.parquet")):
        old.unlink()
    synthetic = each_synthetic_joint(learn, cascade, config.phantoms, config.lesions, given.seed)
    numbers = [
        write_shards(each_real_joint(learn, cascade, weak=config.weak), given.out / "train"),
        write_shards(each_real_joint(judge, cascade, weak=config.weak), given.out / "val"),
        write_shards(synthetic, given.out / "synthetic"),
    ]
    said = {"wanted": _wanted(config), "knees": dict(zip(PARTS, numbers, strict=True))}
    (given.out / "part").write_text(json.dumps(said, indent=2) + "\n")
    (given.out / "part").replace(given.out / SAID)
    print(f"{given.out}: " + ", ".join(f"{number} {part}" for part, number in zip(PARTS, numbers, strict=True)))


if __name__ == "__main__":
    main()
