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
from kneeoa.grading.runtime import Run
from tests.bench.runtimes import run_all, turns_of

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
    taken = {}
    for size in batches:
        joints = [joint] * size
        ready = [member.prepare(joints) for member in grader.members]
        runs: dict[str, Callable[[], object]] = {
            way: partial(_run, made, ready, way != FULL) for way, made in ways.items()
        }
        runs[WHOLE] = partial(_pipelined, grader, joints)
        taken[size] = turns_of(runs, rounds, _clock(device))
        taken[size][WHOLE] = [seconds / PIPELINED for seconds in taken[size][WHOLE]]
    return taken


def work(grader: Grader) -> float:
    """Floating-point operations that a knee takes, in all networks."""
    ready = [member.prepare([np.zeros((64, 128), np.uint8)]) for member in grader.members]
    with FlopCounterMode(display=False) as counted:
        run_all([member.graph for member in grader.members], ready)
    return float(counted.get_total_flops())


def best(device: torch.device) -> float:
    """Floating-point operations a second of a product of two matrices in bfloat16."""
    side = SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / median(turns_of({"": lambda: a @ b}, 10, _clock(device))[""])


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
    """As `Member.prepare`, but still in the memory of the CPU."""
    stacked = [torch.from_numpy(np.stack([standardise(joint, m.config) for joint in joints])) for m in grader.members]
    return [tensor.pin_memory() for tensor in stacked] if grader.device.type == "cuda" else stacked


def _run(graphs: Sequence[Run], ready: Batch, half: bool) -> None:
    with torch.autocast(ready[0].device.type, torch.bfloat16, enabled=half):
        run_all(graphs, ready)


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds on the wall, once the device has done all it was told to."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return now
