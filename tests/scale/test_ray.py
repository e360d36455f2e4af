"""`kneeoa batch --engine ray` on two nodes and S3: a node is killed, then the driver; each film ends with its own rows, once.

``KNEEOA_FILMS`` says how many there are; 300 without it.
"""

import os
import subprocess
import sys
import time
from collections import defaultdict

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install 'kneeoa[ray]'")

from pyarrow import dataset, parquet
from ray.cluster_utils import Cluster

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.reporting.tables import COLUMNS
from kneeoa_cli.files.parts import FOOTER
from kneeoa_cli.files.tables import rows_of
from tests.conftest import ROOT
from tests.scale.cluster import KILLERS, films, s3

FILMS, SEED = int(os.environ.get("KNEEOA_FILMS", 300)), 0
NODE = {"num_cpus": 1, "object_store_memory": 2**28}
PATH = os.pathsep.join(str(ROOT / part) for part in ("model_src", "client", "."))


@pytest.fixture(scope="module")
def named():
    return films(FILMS, SEED)


@pytest.fixture
def address(named, tmp_path):
    with s3(named, tmp_path / "moto.log") as address:
        yield address


@pytest.fixture
def cluster(monkeypatch, address):
    monkeypatch.setenv("PYTHONPATH", PATH)  # of what the nodes start, too; and S3's credentials
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = NODE | {"num_cpus": 0, "include_dashboard": False}  # the driver's node lives
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


def held(out):
    """How many films the output holds."""
    files = out.rglob("part-*.parquet") if out.exists() else ()
    return sum(parquet.read_schema(file).metadata[FOOTER].count(b'["s3://') for file in files)


def one_machine(named, service):
    """The rows that this process gives the same films."""
    contents = list(dict.fromkeys(named.values()))
    replies = dict(zip(contents, (reply.message for reply in service.grade_many(contents)), strict=True))
    return [row for name, data in named.items() for row in rows_of(f"s3://films/{name}", replies[data])]


def test_a_dead_node_and_a_killed_driver_cost_nothing(named, address, cluster, service, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.scale.cluster", address, "--out", str(out), "--address", cluster.address]
    first, second = cluster.add_node(**NODE), cluster.add_node(**NODE)
    driver = subprocess.Popen(command, cwd=ROOT)
    began = time.monotonic()

    def until(share):
        while held(out) < share * FILMS:
            assert driver.poll() is None
            time.sleep(0.5)

    until(0.2)
    cluster.remove_node(second, allow_graceful=False)
    until(0.5)
    driver.kill()
    driver.wait()
    before = held(out)
    cluster.add_node(**NODE)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(f"\n{FILMS} films, {time.monotonic() - began:.0f} s with all blows; {before} when the driver was killed")
    print(done.stdout)

    assert done.returncode == 1, done.stderr
    assert f"{FILMS} films, {before} of them from an earlier run" in done.stdout
    assert DISCLAIMER in done.stdout
    table = dataset.dataset(out, partitioning="hive").to_table()
    assert table.column_names == [*COLUMNS, "prefix"]
    assert set(table["prefix"].to_pylist()) == {"site"}
    killers = {f"s3://films/{name}" for name, data in named.items() if data.endswith(tuple(KILLERS))}
    rows = table.drop_columns("prefix").to_pylist()
    assert [row["error_code"] for row in rows if row["file"] in killers] == ["internal_error"] * len(KILLERS)

    expected = by_knee(row for row in one_machine(named, service) if row["file"] not in killers)
    got = by_knee(row for row in rows if row["file"] not in killers)
    assert sum(map(len, got.values())) == len(rows) - len(KILLERS)
    assert {knee: len(some) for knee, some in got.items()} == {knee: len(some) for knee, some in expected.items()}
    for knee, some in expected.items():  # none lost, none twice, none different; batches differ, and so do last digits
        for row, wanted in zip(got[knee], some, strict=True):
            assert row == pytest.approx(wanted, abs=0.011)  # coordinates are rounded to 0.01 px
    assert first in cluster.list_all_nodes()  # the one that was let live


def by_knee(rows):
    """Rows by film and knee: of most films one each, of an unknown side two."""
    found = defaultdict(list)
    for row in rows:
        found[row["file"], row["knee"]].append(row)
    return found


def test_the_metrics_are_the_servers(named, address, cluster, tmp_path):
    """On Ray's own exporter, with Ray's prefix."""
    import requests

    node = cluster.add_node(**NODE, metrics_export_port=(port := 18_231))
    few = f"{address.replace('s3://films', 's3://films/site1')}"
    command = [sys.executable, "-m", "kneeoa_cli.main", "batch", few, "--engine", "ray"]
    run = subprocess.Popen([*command, "--out", str(tmp_path / "out"), "--address", cluster.address], cwd=ROOT)
    text = ""
    while "ray_kneeoa_requests_total{" not in text or "ray_kneeoa_top_probability_bucket{" not in text:
        assert run.poll() is None, text
        time.sleep(1)
        text = requests.get(f"http://{node.node_ip_address}:{port}/metrics").text
    run.kill()
    run.wait()

    assert 'node="detector"' in text
    assert "site1" not in text
