"""Starting and stopping servers: never the wrong process, no folder left behind, any path, any two at once."""

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy import server
from deploy.processes import _started, launch, process_of, running, stop

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
    finally:
        stop(live)

    assert [folder.exists() for folder in (run, stale, live, starting, other)] == [False, False, True, True, True]
    assert len(told) == 1


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
