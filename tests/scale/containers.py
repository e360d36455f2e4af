"""Images built with buildah and run with podman as root, on a base that mmdebstrap makes: no registry of images is asked."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

BASE, EMPTY, IMAGE = (f"localhost/kneeoa-{name}:test" for name in ("base", "empty", "gpu"))
CERTIFICATES = Path("/etc/ssl/certs")
TAR = ROOT / ".cache/container/base.tar"  # kept: it takes minutes
LIMITS = ("--read-only", "--cap-drop", "all", "--user", "1000", "--security-opt", "no-new-privileges",
          "--ulimit", "nofile=8192", "--ulimit", "nproc=4096")  # fmt: skip
DEBIAN = ("--variant=minbase", "--include=python3,python3-venv,ca-certificates", '--aptopt=Apt::Install-Recommends "false"',
          "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm")  # fmt: skip


class Store:
    """A folder of images and containers of its own."""

    def __init__(self, folder: Path) -> None:
        self.place = ("--root", str(folder / "images"), "--runroot", str(folder / "run"))
        self.folder = folder

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        command = ["podman", *self.place, "--runtime", "runc", "--cgroup-manager", "cgroupfs", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check)

    def start(self, name: str, *arguments: str) -> None:
        """A container in the background, confined as in production; one of that name is replaced."""
        self.podman("rm", "--force", name, check=False)
        self.podman("run", "--detach", "--name", name, "--network", "host", *LIMITS, *arguments)

    def once(self, *arguments: str, image: str = IMAGE) -> subprocess.CompletedProcess:
        """A command in a container, confined in the same way; its output and exit code."""
        return self.podman(
            "run", "--rm", "--no-healthcheck", "--network", "host", *LIMITS, image, *arguments, check=False
        )

    def said(self, name: str) -> str:
        done = self.podman("logs", name)
        return done.stdout + done.stderr

    def build(self, image: str, file: Path, *arguments: str, context: Path = ROOT) -> subprocess.CompletedProcess:
        command = ["buildah", *self.place, "bud", "--isolation", "chroot", "--format", "docker", "--tag", image]
        command += ["--file", str(file), *arguments, str(context)]
        return subprocess.run(command, capture_output=True, text=True)

    def bases(self) -> None:
        """A Debian with Python, and the same without."""
        if not TAR.exists():
            TAR.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mmdebstrap", "--quiet", *DEBIAN, f"{TAR}.part"], check=True)
            Path(f"{TAR}.part").rename(TAR)
        for name, image, lines in (
            ("base", BASE, f'FROM scratch\nADD {TAR.name} /\nCMD ["/bin/sh"]\n'),
            ("empty", EMPTY, f"FROM {BASE}\nRUN rm /usr/bin/python3*\n"),
        ):
            (self.folder / name).write_text(lines)
            self.build(image, self.folder / name, context=TAR.parent).check_returncode()

    def ours(self, *arguments: str, base: str = BASE) -> subprocess.CompletedProcess:
        """Build the image; packages that this machine has in uv's cache already are taken from there."""
        cache = subprocess.run([ROOT / ".venv/bin/uv", "cache", "dir"], capture_output=True, text=True, check=True)
        volumes = [f"{CERTIFICATES}:{CERTIFICATES}:ro", f"{cache.stdout.strip()}:/tmp/uv"]
        mounted = [word for volume in volumes for word in ("--volume", volume) if Path(volume.split(":")[0]).exists()]
        file = ROOT / "deploy/container/Containerfile"
        return self.build(IMAGE, file, *mounted, "--build-arg", f"BASE={base}", *arguments)


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    """A store that is gone afterwards, with all that ran in it; KNEEOA_CONTAINERS names one that is kept."""
    kept = os.environ.get("KNEEOA_CONTAINERS")
    made = Store(Path(kept) if kept else folder)
    try:
        yield made
    finally:
        made.podman("rm", "--all", "--force", check=False)
        if not kept:
            made.podman("rmi", "--all", "--force", check=False)
            shutil.rmtree(folder, ignore_errors=True)
