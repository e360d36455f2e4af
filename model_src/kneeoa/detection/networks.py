"""The two small networks of the cascade.

Wang et al. 2021 give layer counts only; read with the output layer as the last one they are MTCNN's P-Net plus two
conv-pool pairs and MTCNN's O-Net with twelve key-point outputs (docs/method.md). Inputs are grey, ``(x − 127.5) / 128``.
"""

import numpy as np
import torch
from torch import Tensor, nn

WINDOW = 48  # level 1's receptive field, pixels
STRIDE = 8
LEVEL2_SIZE = 48


def as_input(images: np.ndarray) -> Tensor:
    """uint8 (n, h, w) → normalised float32 (n, 1, h, w)."""
    return (torch.from_numpy(images).unsqueeze(1).float() - 127.5) / 128


def _conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]


def pooled_first(trunk: nn.Sequential) -> nn.Sequential:
    """The same function, to the bit, with max pooling before the PReLU that it follows: a quarter of the values are bent.

    The two commute where no slope is negative; elsewhere the order stays.
    """
    layers = list(trunk)
    for i in range(1, len(layers)):
        bend, pool = layers[i - 1 : i + 1]
        if isinstance(bend, nn.PReLU) and isinstance(pool, nn.MaxPool2d) and bool((bend.weight >= 0).all()):
            layers[i - 1 : i + 1] = pool, bend
    return nn.Sequential(*layers)


class Level1(nn.Module):
    """Proposals: three (conv + max pool), three convs; fully convolutional.

    With valid convolutions and a 5×5 first layer no size is ever rounded, so cell (i, j) of the output is exactly the
    network applied to the window ``[8 j, 8 j + 48) × [8 i, 8 i + 48)``: scanning a film equals classifying its windows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_conv(1, 16, 5),
            nn.MaxPool2d(2),
            *_conv(16, 32, 3),
            nn.MaxPool2d(2),
            *_conv(32, 64, 3),
            nn.MaxPool2d(2),
            *_conv(64, 64, 3),
            *_conv(64, 128, 2),
        )
        self.score = nn.Conv2d(128, 1, 1)
        self.box = nn.Conv2d(128, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 1, h, w) → knee logits (n, h', w') and box offsets (n, 4, h', w') in units of the window's side."""
        features = self.trunk(x)
        return self.score(features).squeeze(1), self.box(features)


class Level2(nn.Module):
    """Refinement: three (conv + max pool), one conv, two fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_conv(1, 32, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            *_conv(32, 64, 3),
            nn.MaxPool2d(3, 2),
            *_conv(64, 64, 3),
            nn.MaxPool2d(2),
            *_conv(64, 128, 2),
            nn.Flatten(),
            nn.Linear(1152, 256),
            nn.PReLU(256),
        )
        self.score = nn.Linear(256, 1)
        self.box = nn.Linear(256, 4)
        self.key_points = nn.Linear(256, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 1, 48, 48) → knee logits (n,), box offsets (n, 4), key points (n, 12) as fractions of the crop."""
        features = self.trunk(x)
        return self.score(features).squeeze(1), self.box(features), self.key_points(features)
