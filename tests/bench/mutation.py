"""Do the tests bite? Changes one operator, number or condition of a module at a time and asks whether its tests notice.

Mutants are cosmic-ray's, one for each place, a random sample of them for each module. Files are never touched: each mutant is
imported in a forked process in which PyTorch and its like are loaded already, so one costs a second or two. A mutant that
cannot be imported is no test of the tests, and is not counted. Prints each survivor as a diff: it is a missing test, or a
change that makes no difference, which a person has to tell apart.
"""

import argparse
import difflib
import importlib
import importlib.util
import os
import random
import resource
import signal
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("cv2", "hypothesis", "jsonschema", "msgspec", "pandas", "pydicom", "requests", "timm", "torchvision.ops")
UNIT, PAPER = "tests/unit/test_", "tests/paper/test_method.py::test_"
MODULES = {  # each with the tests that belong to it, those that need no trained weights where they suffice
    "model_src/kneeoa/geometry.py": [
        f"{UNIT}geometry.py",
        f"{PAPER}main_joint_is_the_box_columns_and_the_key_point_rows_widened_by_a_fifth_of_w",
    ],
    "model_src/kneeoa/tasks.py": [
        f"{UNIT}tasks.py",
        f"{UNIT}grading.py::test_features_that_kl_rules_out_are_warned_of",
    ],
    "model_src/kneeoa/grading/patches.py": [
        f"{UNIT}patches.py",
        f"{PAPER}right_patch_is_flipped",
        f"{UNIT}grading.py::test_grey_values_do_not_matter_up_to_a_monotone_change",
        f"{UNIT}grading.py::test_weights_of_another_preprocessing_or_architecture_are_refused",
    ],
    "model_src/kneeoa/messages.py": [f"{UNIT}messages.py", f"{UNIT}incoming.py"],
    "client/kneeoa_cli/pacs/spool.py": [f"{UNIT}spool.py"],
    "client/kneeoa_cli/files/journal.py": [f"{UNIT}journal.py", f"{UNIT}strangers_files.py"],
    "model_src/kneeoa/reply.py": [f"{UNIT}reply.py"],
    "model_src/kneeoa/grading/network.py": [
        f"{UNIT}network.py",
        f"{PAPER}gate_is_equation_6",
        f"{PAPER}gate_width_and_size",
    ],
    "model_src/kneeoa/detection/cascade.py": [f"{UNIT}cascade.py", f"{UNIT}scope.py"],
}
CPU_LIMIT, WALL_LIMIT = 60, 600  # seconds; a mutant that needs more is noticed by whoever waits for it


class Mutant(SourceFileLoader):
    """Finds and loads one module from changed source, everything else as ever."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self.source = source

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec")


def mutants(source: str, rng: random.Random) -> Iterator[str]:
    """Changed sources in random order, one for each place; types, decorators and caught exceptions are left alone."""
    found, tree = [], get_ast(source)
    nodes = list(ast_nodes(tree))
    for name in operator_names():
        operator = get_operator(name)
        if not operator.arguments() and not name.endswith(("RemoveDecorator", "ExceptionReplacer")):
            places = [(node, start) for node in nodes for start, _ in operator().mutation_positions(node)]
            found += [(start, name, i) for i, (node, start) in enumerate(places) if not _in_type(node)]
    rng.shuffle(found)
    for _, name, occurrence in {each[0]: each for each in found}.values():
        changed = mutate_code(source, get_operator(name)(), occurrence)
        if changed and changed != source:
            yield changed


def _in_type(node: object) -> bool:
    """Whether a node belongs to an annotation."""
    while (parent := getattr(node, "parent", None)) is not None:
        if (
            parent.type in ("annassign", "tfpdef")
            and node is not parent.children[0]
            and ("=" not in parent.children or node is parent.children[1])
        ):
            return True
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        node = parent
    return False


def outcome(name: str, path: Path, source: str, tests: list[str]) -> str:
    """``killed``, ``survived`` or ``invalid``; in a process of its own."""
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        sys.meta_path.insert(0, Mutant(name, path, source))
        try:
            importlib.import_module(name)
        except BaseException:
            os._exit(99)
        os._exit(int(pytest.main(["-x", "-q", "-m", "not slow", "--assert=plain", "-p", "no:cacheprovider", *tests])))
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(WALL_LIMIT)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(0)
    return {0: "survived", 99: "invalid"}.get(status, "killed")


def score(path: str, number: int, seed: int) -> str:
    """A row of the table; prints survivors."""
    file, kinds, survivors = ROOT / path, {"killed": 0, "survived": 0, "invalid": 0}, []
    name = ".".join(Path(path).with_suffix("").parts[1:])
    tests = [test for test in MODULES[path] if (ROOT / test.split("::")[0]).exists()]
    source = file.read_text()
    if outcome(name, file, source, tests) != "survived":
        raise SystemExit(f"the tests of {path} fail without any change")
    progress = tqdm(total=number, desc=file.stem, unit="mutant", disable=None)
    for changed in mutants(source, random.Random(seed)):
        kind = outcome(name, file, changed, tests)
        kinds[kind] += 1
        progress.update(kind != "invalid")
        if kind == "survived":
            diff = difflib.unified_diff(source.splitlines(), changed.splitlines(), path, path, lineterm="", n=0)
            survivors.append("\n".join(list(diff)[2:]))
            print(survivors[-1], flush=True)
        if kinds["killed"] + kinds["survived"] == number:
            break
    tried = kinds["killed"] + kinds["survived"]
    return f"| {file.stem} | {tried} | {kinds['killed']} | {100 * kinds['killed'] / tried:.0f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", nargs="+", default=[Path(p).stem for p in MODULES], help="some of them, by name")
    parser.add_argument("--mutants", type=int, default=30, help="of each module, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in HEAVY:
        importlib.import_module(name)
    os.chdir(ROOT)
    print("| module | mutants | killed | score |", "|---|---|---|---|", sep="\n")
    for path in MODULES:
        if Path(path).stem in given.modules:
            print(score(path, given.mutants, given.seed), flush=True)


if __name__ == "__main__":
    main()
