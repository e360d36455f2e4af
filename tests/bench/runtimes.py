"""What runs the grader's networks: PyTorch, AOTInductor, OpenVINO and ONNX Runtime, with the same weights, joints and threads."""

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kneeoa.errors import KneeOaError
from kneeoa.grading.compiled import compiled_here
from kneeoa.grading.grader import Grader
from kneeoa.grading.runtime import Graph, Run
from kneeoa.weights import Weights


def in_turns(
    weights: Weights, joints: Sequence[np.ndarray], sizes: Sequence[int], rounds: int, threads: int, folder: Path
) -> dict[int, dict[str, list[float]]]:
    """Seconds of all members by batch size and runtime, in turns; CPU seconds where there is one thread.

    ``joints``, uint8 (h, w), are repeated where a batch has more. ``folder`` is scratch space.
    """
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    plain = Grader(weights)
    graphs = [member.graph for member in plain.members]
    runs: dict[str, list[Run]] = {"eager": list(graphs)}
    for runtime in ("inductor", "openvino"):
        try:
            grader = Grader(weights, compiled=compiled_here(weights, runtime, joints))
            runs[runtime] = [member.run for member in grader.members]
        except KneeOaError as refused:
            print(f"{runtime} is left out: {refused}")
    runs["ONNX Runtime"] = [_onnx(graph, folder / f"{i}.onnx", threads) for i, graph in enumerate(graphs)]
    taken = {}
    for size in sizes:
        batches = [m.prepare([joints[i % len(joints)] for i in range(size)]) for m in plain.members]
        taken[size] = turns_of(
            {name: partial(run_all, members, batches) for name, members in runs.items()}, rounds, clock
        )
    return taken


def turns_of(
    ways: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of each way in each round, in which all take their turn; a first round, which is slower, does not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, work in ways.items():
            began = clock()
            work()
            taken[name] += [clock() - began] * bool(turn)
    return taken


@torch.no_grad()
def run_all(members: Sequence[Run], batches: Sequence[Tensor]) -> None:
    for run, batch in zip(members, batches, strict=True):
        run(batch)


def _onnx(graph: Graph, path: Path, threads: int) -> Run:
    import onnxruntime

    example = torch.zeros(2, graph.config.patch, 2 * graph.config.patch, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no more packages is the old one
        torch.onnx.export(
            graph, (example,), path, dynamo=False, input_names=["joints"], dynamic_axes={"joints": {0: "n"}}
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda joints: torch.from_numpy(opened.run(None, {"joints": joints.numpy()})[0])
