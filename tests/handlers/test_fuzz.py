import subprocess
import sys

from tests.conftest import ROOT


def test_mutated_films_and_messages_are_each_answered(tmp_path):
    """In a process of its own: a decoder that crashes must not take the tests along. `make fuzz` goes on for longer."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "tests.bench.fuzz", "--seconds", "15"]

    result = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr[-3000:]
    assert "inputs, each answered" in result.stdout
