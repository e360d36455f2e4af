"""What the Ray proof runs on: two nodes of this machine, S3 by moto, films of which some are hostile and some kill an actor."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from pyarrow.fs import FileSystem

from deploy.server import free_port
from kneeoa.messages import Message
from kneeoa_cli.engines import ray as engine
from kneeoa_cli.engines.actors import Detect
from kneeoa_cli.main import main
from tests.corpus import REFUSED
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film

MOTO = ("tool", "run", "--from", "moto[server]==5.2.5", "moto_server")  # apart: it wants other versions than we have
KILLERS = {b"crash": signal.SIGSEGV, b"memory": signal.SIGKILL, b"hang": None}  # as the kernel does without memory
LONGEST = 20.0  # s; a film that hangs
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class Poisoned(Detect):
    """Dies of films that end in one of `KILLERS`, after they were decoded: what no guard around the decoder would see."""

    def message(self, data) -> Message:
        found = super().message(data)
        for mark, death in KILLERS.items():
            if data.result().endswith(mark):
                if death:
                    os.kill(os.getpid(), death)
                while True:
                    time.sleep(1)
        return found


def films(number: int, seed: int, bad: float = 0.3) -> dict[str, bytes]:
    """Small phantom films, a share ``bad`` of them malformed, by name; one of each killer is among the good ones."""
    rng = np.random.default_rng(seed)
    good = [to_dicom(draw_film(rng, spacing_mm=0.5), monochrome1=i % 2 == 1, seed=str(i)) for i in range(8)]
    refused = [data for build, _ in REFUSED.values() if (data := build())]
    named = {}
    for i in range(number):
        some = refused if rng.random() < bad else good
        named[f"site{i % 3}/{i:05}.dcm"] = some[rng.integers(len(some))]
    for place, mark in zip(rng.choice(list(named), len(KILLERS), replace=False), KILLERS, strict=True):
        named[str(place)] = good[0] + mark
    return named


@contextmanager
def s3(films_: dict[str, bytes], log: Path) -> Iterator[str]:
    """A server of our own with a bucket of films; its address for `kneeoa batch`."""
    port = free_port()
    os.environ |= CREDENTIALS
    with log.open("w") as told:
        uv = Path(sys.executable).with_name("uv")
        server = subprocess.Popen([uv, *MOTO, "-p", str(port)], stdout=told, stderr=told, start_new_session=True)
    try:
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert server.poll() is None, f"moto did not start: {log}"
            time.sleep(0.1)
        options = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
        storage, _ = FileSystem.from_uri(f"s3://films?{options}&allow_bucket_creation=true")
        storage.create_dir("films")
        for name, data in films_.items():
            with storage.open_output_stream(f"films/{name}") as file:
                file.write(data)
        yield f"s3://films?{options}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


if __name__ == "__main__":  # the driver that is killed: the command itself, with actors that can be poisoned
    engine.run.__kwdefaults__ |= {"detect": Poisoned, "longest": LONGEST}
    sys.exit(main(["batch", *sys.argv[1:], "--engine", "ray"]))
