"""Weights files: safetensors, half precision, with metadata that says what they are.

The metadata holds ``kind`` (detector, grader), ``version``, ``architecture`` (constructor arguments),
``preprocessing`` (compared at load: constants must not drift from weights) and, for the grader, ``provenance`` by task.
A grader of several members holds their metadata, with the sha256 of each one's own file, under ``members``, their tensors
under ``0.…``, ``1.…``, and the ``mean_temperatures`` that calibrate their mean.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class WeightsError(ValueError):
    """The file does not fit this code; the message says which part."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, metadata, and the sha256 of the file they came from."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    sha256: str

    @property
    def identity(self) -> dict[str, str]:
        """What a reply says of the model."""
        return {"version": self.metadata["version"], "sha256": self.sha256}

    @property
    def members(self) -> list["Weights"]:
        """The networks of an ensemble in their order; any other file has one."""
        if "members" not in self.metadata:
            return [self]
        parts: list[dict[str, Tensor]] = [{} for _ in self.metadata["members"]]
        for name, tensor in self.tensors.items():
            number, own_name = name.split(".", 1)
            parts[int(number)][own_name] = tensor
        stored = zip(parts, self.metadata["members"], strict=True)
        return [Weights(tensors, metadata, metadata["sha256"]) for tensors, metadata in stored]

    def load_into(self, network: nn.Module) -> None:
        """Strict load as float32.

        Raises
        ------
        WeightsError
            If a name or a shape differs.
        """
        try:
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in self.tensors.items()})
        except RuntimeError as error:
            raise WeightsError(f"these weights do not fit the architecture: {error}") from None


def save_weights(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write floating-point tensors in half precision, with the metadata as JSON in the header."""
    half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in tensors.items()}
    save_file(half, path, {"kneeoa": json.dumps(metadata, sort_keys=True)})


def read_weights(path: Path, kind: str) -> Weights:
    """Read a file of the given kind.

    Raises
    ------
    WeightsError
        If it cannot be read, is no kneeoa weights file or one of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("kneeoa")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError):
        raise WeightsError(f"cannot read {path.name} as a safetensors file") from None
    if text is None:
        raise WeightsError(f"{path.name} carries no kneeoa metadata; train_grader and train_detector write it")
    metadata = json.loads(text)
    if metadata["kind"] != kind:
        raise WeightsError(f"{path.name} holds a {metadata['kind']}, expected a {kind}")
    return Weights(tensors, metadata, hashlib.sha256(path.read_bytes()).hexdigest())
