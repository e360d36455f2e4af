"""Mutates films and detection messages, and sends them through both handlers in this process.

An answer must be one envelope of ours, never ``internal_error``, within `SECONDS_EACH`. The input under way lies in
``--out``/last.bin, so that one that kills the process is not lost. What is found is kept in tests/corpus.py.
"""

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid

from handlers.detector_handler import DetectorHandler
from handlers.grader_handler import GraderHandler
from kneeoa.messages import DETECTION_SCHEMA, REPLY_SCHEMA, decode_png, encode_png
from tests.conftest import ROOT
from tests.corpus import DEEP, GREY, REFUSED, file_of, small_film
from tests.handlers.test_handlers import Context

SECONDS_EACH = 5
EXAMPLES = 300  # in a round; every round has its own seed
SYNTAXES = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless,
            uid.JPEG2000Lossless, uid.JPEGLosslessSV1)  # fmt: skip


def films() -> list[bytes]:
    """What is mutated: honest films in every encoding, and the hostile ones that are small."""
    honest = [small_film(syntax=syntax, PixelSpacing=[0.2, 0.2], ImageLaterality="R") for syntax in SYNTAXES]
    honest += [file_of(Image.fromarray(pixels), kind) for pixels in (GREY, DEEP) for kind in ("PNG", "TIFF")]
    honest.append(file_of(Image.fromarray(GREY), "JPEG"))
    return honest + [data for build, _ in REFUSED.values() if 0 < len(data := build()) < 50_000]


@st.composite
def mutated(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """One of the corpus with a few places overwritten, cut out, repeated, filled in or spliced with another one."""
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        end = at + draw(st.sampled_from((1, 2, 4, 8, 64, 4096)))
        kind = draw(st.sampled_from(("overwrite", "cut", "repeat", "insert", "splice", "end")))
        if kind in ("overwrite", "insert"):
            new = draw(st.one_of(st.binary(max_size=8), st.sampled_from((b"\xff\xff\xff\xff", bytes(4), b"\xfe\xff"))))
            data[at : at + len(new) if kind == "overwrite" else at] = new
        elif kind == "cut":
            del data[at:end]
        elif kind == "repeat":
            data[at:at] = data[at:end] * draw(st.integers(1, 50))
        elif kind == "splice":
            data[at:] = draw(st.sampled_from(corpus))[at:]
        else:
            del data[at:]
    return bytes(data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def messages(draw: st.DrawFn, detection: dict[str, Any]) -> bytes:
    """A detection message with some values, anywhere in it, replaced by anything or left out."""
    message = json.loads(json.dumps(detection))
    for _ in range(draw(st.integers(1, 4))):
        at: Any = message
        while True:
            places = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(at[place], dict | list) and at[place] and draw(st.integers(0, 3)):
                at = at[place]
            elif draw(st.booleans()):
                at[place] = draw(ANYTHING)
                break
            else:
                del at[place]
                break
    return json.dumps(message).encode()


def explore(bodies: st.SearchStrategy[bytes], check: Callable[[bytes], None], number: int, start: int) -> None:
    """One round of hypothesis."""

    @seed(start)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies)
    def one(body: bytes) -> None:
        check(body)

    one()


def fuzz(seconds: float, first_seed: int, last: Path) -> Counter[str]:
    """Rounds until the time is over; how often each code was the answer (``graded`` and the like where none was).

    Raises
    ------
    AssertionError
        With the shrunken input in ``last``.
    """
    torch.set_num_threads(1)
    detector, grader = DetectorHandler(), GraderHandler()
    detector.initialize(Context())
    grader.initialize(Context())
    detection = json.loads(detector.handle([{"body": (ROOT / "samples/bilateral.dcm").read_bytes()}], Context())[0])
    for knee in detection["knees"]:
        knee["crop"] = encode_png(decode_png(knee["crop"])[::4, ::4])  # a finding is printed
    told, corpus, ends = Counter[str](), films(), time.monotonic() + seconds

    def answer(handler: Any, body: bytes, schema: str) -> None:
        last.write_bytes(body)
        began = time.monotonic()
        (reply,) = handler.handle([{"body": bytearray(body)}], Context())
        message = json.loads(reply)
        code = message["error"]["code"] if message["error"] else message["status"]
        assert time.monotonic() - began < SECONDS_EACH
        assert message["schema"] == schema
        assert code != "internal_error"
        told[code] += 1

    rounds = first_seed
    while time.monotonic() < ends:
        explore(mutated(corpus), lambda body: answer(detector, body, DETECTION_SCHEMA), EXAMPLES, rounds)
        # a tenth as many: these are graded, which takes a hundred times as long
        explore(messages(detection), lambda body: answer(grader, body, REPLY_SCHEMA), EXAMPLES // 10, rounds)
        rounds += 1
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "out/fuzz")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    logging.disable()  # handlers tell of each bad film, and there are thousands
    counted = fuzz(arguments.seconds, arguments.seed, arguments.out / "last.bin")
    print(
        f"{counted.total()} inputs, each answered:", *(f"  {code}: {n}" for code, n in counted.most_common()), sep="\n"
    )
