"""What decoding in a process of its own costs: each film in turn in this process and in the guarded one, in one run."""

import argparse
import time
from collections.abc import Callable

from kneeoa.imaging import decode
from kneeoa.imaging.guarded import GuardedDecoder
from tests.conftest import DATA, ROOT


def seconds(call: Callable[[bytes], object], film: bytes) -> float:
    began = time.perf_counter()
    call(film)
    return time.perf_counter() - began


def main(repeats: int) -> None:
    guarded = GuardedDecoder()
    print(f"{'film':28} {'MP':>6} {'here':>8} {'guarded':>8} {'more':>8} {'ratio':>6}")
    for path in [*sorted((ROOT / "samples").glob("*.dcm")), *sorted((DATA / "dicom").glob("*.dcm"))]:
        film = path.read_bytes()
        pairs = [(seconds(decode, film), seconds(guarded, film)) for _ in range(repeats)]
        here, there = (1000 * min(times) for times in zip(*pairs, strict=True))  # of a busy machine's times the least
        size = decode(film).pixels.size / 1e6
        print(f"{path.name[:28]:28} {size:6.1f} {here:6.1f}ms {there:6.1f}ms {there - here:6.1f}ms {there / here:6.2f}")
    guarded.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    main(parser.parse_args().repeats)
