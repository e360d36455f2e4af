"""The grader's networks on a device: knees a second by batch, and their share of what the device does at its best.

Its best is a product of two large matrices in bfloat16. Joints are prepared by a thread while the device has the batch before,
and uploaded from pinned memory where there is a GPU.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kneeoa.grading.grader import Grader
from kneeoa.grading.patches import standardise

BATCHES = (1, 8, 64, 256)
SIDE = {"cuda": 8192, "cpu": 1024}  # of the matrices
FULL, HALF, COMPILED = "float32", "bfloat16", "bfloat16, compiled"
WHOLE = "bfloat16, joints prepared and uploaded meanwhile"
PIPELINED = 4  # batches in a row
Batch = list[Tensor]  # one tensor a member, uint8 (n, p, 2 p)


def in_turns(
    grader: Grader, joint: np.ndarray, rounds: int, batches: Sequence[int] = BATCHES
) -> dict[int, dict[str, list[float]]]:
    """Seconds a batch, by its size and by the way it goes."""
    device = grader.device
    graphs = [member.graph for member in grader.members]
    ways = {FULL: graphs, HALF: graphs}
    if device.type == "cuda":
        ways[COMPILED] = [torch.compile(graph, mode="reduce-overhead", dynamic=False) for graph in graphs]
    taken: dict[int, dict[str, list[float]]] = {}
    for size in batches:
        ready = [tensor.to(device) for tensor in _prepared(grader, [joint] * size)]
        runs: dict[str, Callable[[], object]] = {
            way: partial(_run, made, ready, way != FULL) for way, made in ways.items()
        }
        runs[WHOLE] = partial(_pipelined, grader, [joint] * size)
        taken[size] = {way: [] for way in runs}
        for turn in range(rounds + 1):
            for way, run in runs.items():
                seconds = _seconds(run, device) / (PIPELINED if way == WHOLE else 1)
                taken[size][way] += [seconds] * bool(turn)  # the first one compiles, and chooses algorithms
    return taken


def work(grader: Grader) -> float:
    """Floating-point operations that a knee takes, in all networks."""
    ready = [tensor.to(grader.device) for tensor in _prepared(grader, [np.zeros((64, 128), np.uint8)])]
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        _run([member.graph for member in grader.members], ready, half=False)
    return float(counted.get_total_flops())


def best(device: torch.device) -> float:
    """Floating-point operations a second of a product of two matrices in bfloat16."""
    side = SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / median(_seconds(lambda: a @ b, device) for _ in range(10))


def _pipelined(grader: Grader, joints: Sequence[np.ndarray]) -> None:
    graphs = [member.graph for member in grader.members]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_prepared, grader, joints)
        for left in reversed(range(PIPELINED)):
            ready = [tensor.to(grader.device, non_blocking=True) for tensor in waiting.result()]
            if left:
                waiting = pool.submit(_prepared, grader, joints)
            _run(graphs, ready, half=True)


def _prepared(grader: Grader, joints: Sequence[np.ndarray]) -> Batch:
    stacked = [torch.from_numpy(np.stack([standardise(joint, m.config) for joint in joints])) for m in grader.members]
    return [tensor.pin_memory() for tensor in stacked] if grader.device.type == "cuda" else stacked


@torch.no_grad()
def _run(graphs: Sequence[Callable[[Tensor], Tensor]], ready: Batch, half: bool) -> None:
    with torch.autocast(ready[0].device.type, torch.bfloat16, enabled=half):
        for graph, joints in zip(graphs, ready, strict=True):
            graph(joints)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - began
