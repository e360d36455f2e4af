"""Starts, refreshes and stops the gateway: HAProxy before a running kneeoa server.

It has its own folder: settings, certificate, the hashes of its clients' credentials, their key file, its log.
"""

import argparse
import hashlib
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from deploy.processes import DeployError, launch, process_of, running, stop
from deploy.server import ROOT, RUN
from kneeoa.errors import KneeOaError
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa_client.web import authorization

FOLDER = ROOT / ".gateway"
START_SECONDS = 60
REFUSALS = {  # file → status, code, message
    "400": (
        400,
        "bad_request",
        "The gateway does not understand this request: it needs a Content-Length, and small headers.",
    ),
    "401": (401, "unauthorized", "The Authorization header is missing or unknown."),
    "404": (404, "not_found", "Films go to /wfpredict/knee_oa, /predictions/detector or /predictions/grader."),
    "405": (405, "method_not_allowed", "Films are sent with POST."),
    "408": (408, "timeout", "The request did not arrive in time."),
    "413": (413, "too_large", "The body is larger than 64 MiB."),
    "415": (415, "unsupported_media_type", "A form; send the file itself as the body, e.g. curl -T film.dcm."),
    "431": (431, "headers_too_large", "The headers are larger than 7000 bytes."),
    "500": (500, "internal_error", "The gateway failed."),
    "502": (502, "unavailable", "The server gave no proper answer; ask again."),
    "503": (503, "unavailable", "The server is not ready; ask again after the seconds in Retry-After."),
    "504": (504, "timeout", "The server took too long."),
    "busy": (503, "busy", "Too many films are waiting; ask again after the seconds in Retry-After."),
}


def refusal(name: str) -> str:
    """The body of a refusal, in the shape of every reply."""
    status, code, message = REFUSALS[name]
    error = KneeOaError(message, stage="gateway")
    error.code, error.http_status = code, status
    return json.dumps(envelope(REPLY_SCHEMA, error), separators=(",", ":"))


def credential(text: str) -> str:
    """What the gateway keeps of a credential, ``token`` or ``user:password``: the sha256 of its Authorization header."""
    return hashlib.sha256(authorization(text).encode()).hexdigest()


def _settings(folder: Path, run: Path, bind: str, certificate: Path, metrics: str) -> None:
    """The part of the configuration that this run decides; 0600, since it holds TorchServe's token."""
    key = json.loads((run / "key_file.json").read_text())["inference"]["key"]
    values = {
        "BIND": bind,
        "CERTIFICATE": certificate,
        "FILES": folder,
        "KEY": key,
        "LUA": ROOT / "deploy/gateway/refuse.lua",
        "METRICS": f"{metrics}:{int(bind.rpartition(':')[2]) + 1}",
        "SERVER": json.loads((run / "server.json").read_text())["url"].removeprefix("http://"),
    }
    lines = ["global", *(f'    setenv KNEEOA_{name} "{value}"' for name, value in values.items())]
    (folder / "settings.cfg").touch(0o600)
    (folder / "settings.cfg").write_text("\n".join(lines) + "\n")
    (folder / "gateway.json").write_text(
        json.dumps({"bind": bind, "certificate": str(certificate), "metrics": values["METRICS"]})
    )


def haproxy() -> str:
    """The program; `DeployError` if it is not installed."""
    tool = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if tool is None:
        raise DeployError("HAProxy is not installed; on Debian: apt-get install haproxy")
    return tool


def prepare(
    folder: Path, run: Path, bind: str, certificate: Path | None, users: Path | None, metrics: str = "127.0.0.1"
) -> list[str]:
    """Write what HAProxy reads into ``folder``; the command that starts it there. Parameters as of `start`.

    ``metrics`` is the address of its metrics, whose port is the next one after ``bind``'s.

    Raises
    ------
    DeployError
        If HAProxy is not installed, or a file that was named, or the server's key, cannot be read.
    """
    tool = haproxy()
    for what, file in (("list of clients", users), ("certificate", certificate), ("key", run / "key_file.json")):
        if file and not os.access(file, os.R_OK):
            raise DeployError(f"the {what} {file} is missing or cannot be read")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in REFUSALS:
        (folder / f"{name}.json").write_text(refusal(name))
    if not (folder / "key_file.json").exists():
        (folder / "key_file.json").touch(0o600)
        (folder / "key_file.json").write_text(json.dumps({"inference": {"key": secrets.token_urlsafe(32)}}))
    own = json.loads((folder / "key_file.json").read_text())["inference"]["key"]
    others = [line for line in users.read_text().splitlines() if line] if users else []
    (folder / "clients").write_text("\n".join(map(credential, [own, *others])) + "\n")
    if certificate is None:
        certificate = folder / "tls.pem"
        if not certificate.exists():
            self_signed(certificate)
    _settings(folder, run, bind, certificate, metrics)
    return [tool, "-W", "-f", str(folder / "settings.cfg"), "-f", str(ROOT / "deploy/gateway/haproxy.cfg")]


def start(
    folder: Path = FOLDER,
    run: Path = RUN,
    bind: str = "127.0.0.1:8443",
    certificate: Path | None = None,
    users: Path | None = None,
) -> None:
    """Start HAProxy; returns once it calls the server ready.

    Parameters
    ----------
    certificate : Path, optional
        PEM with key and chain. Without: self-signed, for localhost, valid for 30 days, in ``tls.pem``.
    users : Path, optional
        A token or user:password a line, besides the token in the folder's ``key_file.json``. It is only read.

    Raises
    ------
    DeployError
        If HAProxy is not installed, the server does not run, or it does not become ready.
    """
    if not running(run):
        raise DeployError("no server is running; start it first with: make serve")
    if running(folder):
        raise DeployError("a gateway is already running here; stop it with: make gateway-stop")
    command = prepare(folder, run, bind, certificate, users)
    with open(folder / "haproxy.log", "ab") as log:
        launch(folder, command, stdout=log, stderr=log)
    try:
        _until_ready(folder)
    except BaseException:
        stop(folder)
        raise


def refresh(folder: Path = FOLDER, run: Path = RUN) -> None:
    """After a restart of the server: take its new token and address, without losing a connection. No gateway: nothing."""
    if master := process_of(folder):
        reload(folder, run, master.pid)
        _until_ready(folder)


def reload(folder: Path, run: Path, master: int) -> None:
    """Have HAProxy, whose master process is named by its number, read the server's token and address anew."""
    kept = json.loads((folder / "gateway.json").read_text())
    _settings(folder, run, kept["bind"], Path(kept["certificate"]), kept["metrics"].rpartition(":")[0])
    os.kill(master, signal.SIGUSR2)


def ready(folder: Path = FOLDER) -> bool:
    """Whether both nodes answered the gateway's last checks."""
    bind = json.loads((folder / "gateway.json").read_text())["bind"]
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it is asked from here, whatever name its certificate has
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    asked = build_opener(ProxyHandler({}), HTTPSHandler(context=blind))
    try:
        asked.open(f"https://127.0.0.1:{bind.rpartition(':')[2]}/ready", timeout=5).close()
    except OSError:
        return False
    return True


def _until_ready(folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready(folder):
        if not running(folder) or time.monotonic() > deadline:
            raise DeployError(f"the gateway did not become ready; see {folder / 'haproxy.log'}")
        time.sleep(0.1)


def self_signed(path: Path) -> None:
    """A certificate for localhost with its key, valid for 30 days, in one PEM file."""
    path.touch(0o600)
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *names]
    made = subprocess.run([*command, "-keyout", "-", "-out", "-"], capture_output=True, check=True)
    path.write_bytes(made.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("start", "refresh", "stop"))
    parser.add_argument("--bind", default="127.0.0.1:8443", help="address and port; *:8443 for all")
    parser.add_argument("--certificate", type=Path, help="PEM with key and chain; default: self-signed")
    parser.add_argument("--users", type=Path, help="a token or user:password a line")
    arguments = parser.parse_args()
    if arguments.action == "stop":
        stop(FOLDER)
    elif arguments.action == "refresh":
        refresh()
    else:
        try:
            start(bind=arguments.bind, certificate=arguments.certificate, users=arguments.users)
        except DeployError as error:
            sys.exit(str(error))
        print(f"ready: https://{arguments.bind}/wfpredict/knee_oa; key in .gateway/key_file.json")
