"""bfloat16 where it helps: on GPUs and on CPUs that have instructions for it."""

from functools import partial

import torch
from torch import Tensor, nn


def chosen(wanted: str) -> str:
    """Lightning's name of the precision; ``auto`` is ``bf16-mixed`` where the machine multiplies in bfloat16."""
    if wanted != "auto":
        return wanted
    fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


def depthwise_in_float(network: nn.Module) -> None:
    """Keep the depthwise convolutions of 5 × 5 or of stride 2 in float32 on a CPU.

    oneDNN's gradient of these is two to ten times slower in bfloat16: an epoch of EfficientNet-Lite0 takes half as long so.
    """
    for conv in network.modules():
        if not isinstance(conv, nn.Conv2d) or not conv.groups == conv.in_channels > 1:
            continue
        if conv.stride != (1, 1) or conv.kernel_size != (3, 3):
            conv.forward = partial(_in_float, conv)  # type: ignore[method-assign]


def _in_float(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return type(conv).forward(conv, x)
    with torch.autocast("cpu", enabled=False):
        return type(conv).forward(conv, x.float()).to(x.dtype)
