"""What runs a grader's networks: PyTorch as it is, or what was compiled of them when an archive was built.

``eager`` runs everywhere. ``inductor`` is machine code that PyTorch's compiler makes for this CPU and this PyTorch (AOTInductor);
``openvino`` is OpenVINO's form of the same graph. Both lie in a folder, one file a network, beside ``runtime.json``, which says
what they fit: these weights, this PyTorch, this CPU.
"""

import copy
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kneeoa.errors import KneeOaError
from kneeoa.grading.network import JointGrader
from kneeoa.grading.patches import Preprocessing, to_patches
from kneeoa.wire import Runtime

RUNTIMES: tuple[str, ...] = get_args(Runtime)
TOLD = "runtime.json"
MOST_JOINTS = 1024  # in one batch of a compiled graph
Run = Callable[[Tensor], Tensor]  # what `Graph.forward` does


class RuntimeRefused(KneeOaError):
    """This runtime cannot be had here."""

    code, stage = "runtime_refused", "grade"


class Graph(nn.Module):
    """A member of a grader as one graph, calibration included.

    Parameters
    ----------
    network : JointGrader
        For inference, its batch norms folded.
    config : Preprocessing
    temperatures : mapping of str to float
        By task; 1 where not named.
    """

    def __init__(self, network: JointGrader, config: Preprocessing, temperatures: Mapping[str, float]) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.temperatures = [temperatures.get(task, 1.0) for task in network.heads]

    def forward(self, joints: Tensor) -> Tensor:
        """Standardised joints, uint8 (n, p, 2 p) → (n, Σ grades + 1): probabilities of each task in turn, then the gate."""
        logits, gate = self.network(*self.patches(joints))
        return torch.cat([*self.calibrated(logits), gate.float()[:, None]], dim=1)

    def patches(self, joints: Tensor) -> list[Tensor]:
        """What the network takes: see `to_patches`."""
        return [p.contiguous(memory_format=torch.channels_last) for p in to_patches(joints, self.config)]

    def calibrated(self, logits: Mapping[str, Tensor]) -> list[Tensor]:
        """Probabilities (n, grades) of each task, in the order of ``tasks``."""
        return [(v.float() / t).softmax(dim=1) for v, t in zip(logits.values(), self.temperatures, strict=True)]


@torch.no_grad()
def folded(network: JointGrader, channels: int) -> JointGrader:
    """The network with each batch norm folded into the convolution before it; what it did besides, an activation, stays.

    The network itself where that changes what it says: not every backbone runs its modules in the order in which it lists them.
    """
    other = copy.deepcopy(network)
    for parent in other.modules():
        last: tuple[str, nn.Module] = "", parent
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.BatchNorm2d) and isinstance(last[1], nn.Conv2d):
                setattr(parent, last[0], fuse_conv_bn_eval(last[1], module))
                setattr(parent, name, getattr(module, "act", nn.Identity()))  # timm's batch norm has one
            last = name, module
    patches = torch.linspace(-2, 2, 2 * channels * 64 * 64).sin().reshape(2, 1, channels, 64, 64)
    (before, _), (after, _) = network(*patches), other(*patches)
    return other if all(torch.allclose(before[task], after[task], atol=1e-3) for task in before) else network


def compile_graphs(runtime: str, graphs: Sequence[Graph], sha256: str, folder: Path) -> None:
    """Write what ``runtime`` makes of the graphs of a grader's weights into ``folder``; nothing for ``eager``.

    Raises
    ------
    RuntimeRefused
        If the compiler is not there, or does not get on with such a network.
    """
    if runtime == "eager":
        return
    folder.mkdir(parents=True, exist_ok=True)
    joints = [torch.zeros(2, g.config.patch, 2 * g.config.patch, dtype=torch.uint8) for g in graphs]
    with torch.no_grad():
        for number, (graph, example) in enumerate(zip(graphs, joints, strict=True)):
            try:
                {"inductor": _inductor, "openvino": _openvino}[runtime](graph, example, folder / str(number))
            except RuntimeRefused:
                raise
            except Exception as error:
                raise RuntimeRefused(f"{runtime} cannot compile this network ({type(error).__name__})") from error
    (folder / TOLD).write_text(json.dumps({"runtime": runtime, "grader": sha256, **_machine(runtime)}, indent=1))


def load_graphs(folder: Path, sha256: str, number: int) -> tuple[str, list[Run]]:
    """The runtime's name and what runs each of the ``number`` graphs of the weights ``sha256``.

    Raises
    ------
    RuntimeRefused
        If it does not fit, or cannot be loaded.
    """
    try:
        told = json.loads((folder / TOLD).read_text())
        open_one = {"inductor": _open_inductor, "openvino": _open_openvino}[told["runtime"]]
        if reason := _unfit(told, sha256):
            raise RuntimeRefused(reason)
        return told["runtime"], [open_one(folder / str(i)) for i in range(number)]
    except RuntimeRefused:
        raise
    except Exception as error:
        raise RuntimeRefused(f"what was compiled could not be loaded ({type(error).__name__})") from None


def _machine(runtime: str) -> dict[str, Any]:
    """What compiled networks depend on beside their weights."""
    if runtime != "inductor":
        return {}
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return {"torch": torch.__version__, "cpu": sorted(flags)}


def _unfit(told: dict[str, Any], sha256: str) -> str | None:
    here = _machine(told["runtime"])
    if told["grader"] != sha256:
        return "the networks were compiled from other weights"
    if told.get("torch") != here.get("torch"):
        return "the networks were compiled by another PyTorch"
    if set(told.get("cpu", [])) - set(here.get("cpu", [])):
        return "the networks were compiled for a CPU with more instructions than this one has"
    return None


def _inductor(graph: Graph, example: Tensor, path: Path) -> None:
    shapes = ({0: torch.export.Dim("joints", min=1, max=MOST_JOINTS)},)
    exported = torch.export.export(graph, (example,), dynamic_shapes=shapes)
    options = {"cpp.dynamic_threads": True}  # frozen, EfficientNet-Lite said something else (PyTorch 2.14.1)
    try:
        torch._inductor.aoti_compile_and_package(exported, package_path=f"{path}.pt2", inductor_configs=options)
    except torch._inductor.exc.InvalidCxxCompiler:
        raise RuntimeRefused("inductor needs a C++ compiler: apt install g++") from None


def _open_inductor(path: Path) -> Run:
    return torch._inductor.aoti_load_package(f"{path}.pt2")


def _ov() -> Any:
    """OpenVINO, without its telemetry, which sends how it is used to its makers unless it is switched off."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it fails, which OpenVINO allows for
    try:
        import openvino
    except ImportError:
        raise RuntimeRefused("OpenVINO is not installed: pip install 'kneeoa[openvino]'") from None
    return openvino


def _openvino(graph: Graph, example: Tensor, path: Path) -> None:
    ov = _ov()
    shape = ov.PartialShape([-1, *example.shape[1:]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: its own age, and constants, which these are
        model = ov.convert_model(graph, example_input=example, input=[shape])
    ov.save_model(model, f"{path}.xml", compress_to_fp16=False)


def _open_openvino(path: Path) -> Run:
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # bf16 moves probabilities by more than 0.01; f16 is no faster
    }
    compiled = _ov().Core().compile_model(f"{path}.xml", "CPU", options)
    return lambda joints: torch.from_numpy(compiled.infer_new_request([joints.numpy()])[0])
