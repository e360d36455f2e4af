"""How long a cohort takes, and what is left out of a dirty one: a generated OAI of 200 people over seven visits, a MOST of 100.

Films of the manifest are small (64 × 64), so that what is measured is the reading of tables, folders and headers; crops are cut
from phantoms of 0.8 mm pixels. Seconds are the processor's, in one process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests.unit.releases import SEVEN, phantom, square, write_film, write_most, write_oai
from training.data.cut_crops import main as cut_crops
from training.data.make_manifest import main as make_manifest


def spoil(root: Path, people: int) -> None:
    """What happens to some of many films: lost, cut off, empty, taken again."""
    films = sorted(root.glob("OAI/images/*/*/9*/20050112/00*/001"))
    for i, path in enumerate(films[people // 2 :: 97]):
        if i % 4 == 0:
            path.unlink()
        elif i % 4 == 1:
            path.write_bytes(path.read_bytes()[:-1000])
        elif i % 4 == 2:
            path.write_bytes(b"")
        else:  # a second film of that visit, and one that was read is not told by its barcode
            for series, barcode in ((path.parent.name, "016699999998"), ("00999999", "016699999999")):
                write_film(path.parent.parent / series / "001", barcode=barcode)


def timed(what: str, films: int, work: Callable[[], object]) -> None:
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    print(f"=== {what}: {films} films, {seconds:.1f} s, {1000 * seconds / films:.1f} s per thousand films\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200, help="of OAI; MOST has half as many")
    parser.add_argument("--cut", type=int, default=24, help="phantom films to cut")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, half = Path(folder), given.people // 2
        write_oai(root / "OAI", given.people, SEVEN, {(3, "R"): ("BLRP", 1), (4, "L"): ("VSPR", 5)}, square)
        write_most(root / "MOST", half, (0, 1, 2, 3, 5), {(2, "R"): 3})
        spoil(root, given.people)
        films, call = (
            given.people * len(SEVEN) + half * 5,
            ["oai-most", str(root), "--split", "by-subject", "--workers", "1"],
        )
        timed("dry run", films, lambda: make_manifest([*call, "--check"]))
        timed("manifest, quick", films, lambda: make_manifest([*call, "--quick", "--out", str(root / "quick.parquet")]))
        timed("manifest", films, lambda: make_manifest([*call, "--out", str(root / "all.parquet")]))
        timed("manifest, again", films, lambda: make_manifest([*call, "--out", str(root / "all.parquet")]))
        write_oai(root / "phantoms", given.cut, draw=phantom)
        manifest = str(root / "phantoms.parquet")
        make_manifest(["oai", str(root / "phantoms"), "--out", manifest, "--quick"])
        crops = [manifest, "--data", str(root / "phantoms"), "--out", str(root / "crops"), "--workers", "1"]
        timed("crops", given.cut, lambda: cut_crops(crops))
        print((root / "crops/detection.md").read_text())


if __name__ == "__main__":
    main()
