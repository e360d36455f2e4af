"""Starting and stopping servers: never the wrong process, no folder left behind, any path, any two at once."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from deploy import server
from deploy.processes import DeployError, _started, launch, process_of, running, stop

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def stranger():
    """A process group of somebody else's."""
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_what_was_launched_is_known_and_stopped_with_its_children(tmp_path):
    leader = launch(tmp_path, ["sh", "-c", "sleep 60 & sleep 60", "a", "b"])
    while not (children := leader.children()):
        pass

    assert process_of(tmp_path) == leader
    stop(tmp_path)

    assert not running(tmp_path)
    assert not any(process.is_running() for process in (leader, *children))
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("told", ["number alone", "another start", "another command", "garbage"])
def test_a_stale_pid_file_harms_nobody(tmp_path, stranger, told):
    """`make stop` killed the group of whoever had got the number since."""
    began = _started(stranger.pid)
    known = {"started": began, "arguments": SLEEPER[-3:]}
    if told == "another start":
        known["started"] -= 3600
    elif told == "another command":
        known["arguments"] = ["torchserve"]
    text = {"number alone": "", "garbage": "{"}.get(told, json.dumps(known))
    (tmp_path / "pid").write_text(f"{stranger.pid}\n{text}\n")

    assert not running(tmp_path)
    stop(tmp_path)

    assert stranger.poll() is None
    assert not (tmp_path / "pid").exists()


def test_run_folders_of_servers_that_are_gone_are_removed_and_of_others_not(tmp_path, stranger):
    names = ("run", "kneeoa-demo-stale", "kneeoa-demo-live", "kneeoa-demo-starting", "other")
    run, stale, live, starting, other = (tmp_path / name for name in names)
    for folder in (run, stale, live, starting, other):
        folder.mkdir()
    (stale / "pid").write_text(f"{stranger.pid}\n")
    launch(live, SLEEPER)
    try:
        told = server.clean(run, tmp_path)
        assert server.clean(live, tmp_path / "none") == told
    finally:
        stop(live)

    assert [folder.exists() for folder in (run, stale, live, starting, other)] == [False, False, True, True, True]
    assert told == [f"a server is running in {live}; stop it with: make stop"]


def test_a_port_in_use_is_told_and_leaves_no_address_behind(tmp_path):
    """The next `kneeoa grade` sent its film to whoever listened there."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/server.json").write_text("{}")  # of a server that was killed
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeployError, match=rf"^port {port} is in use; choose another: make serve PORT=\d+$"):
            server.start(tmp_path / "run", port=port - 2)  # TorchServe's metrics address

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["it is stopped", "it does not start"])
def test_a_server_that_is_gone_leaves_no_address_behind(tmp_path, monkeypatch, how):
    def launched(run, *_, **__):
        assert (run / "server.json").exists()
        raise OSError("no torchserve")

    monkeypatch.setattr(server, "launch", launched)
    if how == "it is stopped":
        (tmp_path / "server.json").touch()
        server.end(tmp_path)
    else:
        with pytest.raises(OSError, match="no torchserve"):
            server.start(tmp_path, port=server.free_port())

    assert not (tmp_path / "server.json").exists()


def test_an_interrupted_demo_says_so_in_a_line_and_leaves_nothing(tmp_path):
    """However often Ctrl-C is pressed: the second one must not end the tidying up."""
    code = f"""
import os, signal, sys
from pathlib import Path
from deploy import demo, processes

def start(run, port):
    (run / "key_file.json").touch()
    processes.launch(run, {SLEEPER})
    Path({str(tmp_path / "launched")!r}).write_text((run / "pid").read_text())
    os.kill(os.getpid(), signal.SIGINT)

def stop(run):
    os.kill(os.getpid(), signal.SIGINT)
    processes.stop(run)

demo.start, demo.stop, demo.OUT = start, stop, Path({str(tmp_path)!r})
sys.exit(demo.main())
"""
    (tmp_path / "tmp").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
    )

    assert ran.stderr == "demo: interrupted; the server is stopped\n"
    assert ran.returncode == 130
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not psutil.pid_exists(int((tmp_path / "launched").read_text().split()[0]))


def test_two_who_ask_at_once_get_ports_of_their_own():
    with ExitStack() as one, ExitStack() as other:
        first, second = server.free_port(one), server.free_port(other)

        assert abs(first - second) >= server.PORTS


def test_paths_are_written_as_java_reads_them(tmp_path):
    """Properties are Latin-1; a backslash escapes."""
    folder = tmp_path / "Knie-ä ł \U0001f9b4 \\n=:#"
    folder.mkdir()
    text = server.configure(folder, folder / "store", 9000, folder / "metrics.yaml").read_bytes().decode("latin-1")

    value = re.search("^model_store=(.*)$", text, re.MULTILINE)[1]
    units = re.findall(r"\\u([0-9a-f]{4})|\\(\\)|([^\\])", value)
    read = b"".join(bytes.fromhex(u) if u else (s or c).encode("utf-16-be") for u, s, c in units).decode("utf-16-be")
    assert Path(read) == folder / "store"
    assert text.isascii()


def test_the_console_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "CONSOLE", "1000")
    (tmp_path / "logs").mkdir()
    with server._console(tmp_path) as console:
        process = subprocess.Popen(["sh", "-c", "yes 2>/dev/null | head -c 100000; sleep 0.1"], stdout=console)
    process.wait()

    assert os.path.getsize(tmp_path / "logs/console.log") == 1000
