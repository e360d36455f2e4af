"""`kneeoa batch --engine ray`, all but the cluster: what is listed, what actors answer, what is written, what goes on."""

import json
import os
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml

pytest.importorskip("ray", reason="ray is not installed: pip install 'kneeoa[ray]'")

from pyarrow import dataset, parquet

from kneeoa.errors import UnreadableFile
from kneeoa.reporting.tables import COLUMNS, rows_of
from kneeoa_cli.engines import ray as engine
from kneeoa_cli.engines.actors import Detect, Whole, as_block, at_most, unpacked
from kneeoa_cli.engines.metrics import NAMES
from kneeoa_cli.files.inputs import NoRadiographs, Source, SourceError, walk
from kneeoa_cli.files.parts import Entry, Parts
from kneeoa_cli.files.remote import Remote, Stores
from kneeoa_cli.main import main
from tests.conftest import ROOT


def test_an_address_is_listed_with_its_archives_and_without_our_reports(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/1.dcm", "a/2.PNG", "3", "notes.txt", "a/b/1.sr.dcm", "DICOMDIR"):
        (tmp_path / name).write_bytes(name.encode())
    with zipfile.ZipFile(tmp_path / "a/films.zip", "w") as archive:
        archive.writestr("x/4.dcm", b"inside")
        archive.writestr("x/readme.txt", b"")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    stores, skipped = Stores(), []
    films = list(stores.films(tmp_path.as_uri(), skipped))

    names = [film.name.removeprefix(tmp_path.as_uri() + "/") for film in films]
    assert names == ["3", "a/2.PNG", "a/b/1.dcm", "a/films.zip!x/4.dcm", "broken.zip"]
    assert [film.path[-11:] for film in skipped] == ["/b/1.sr.dcm"]
    assert stores.read(films[2]) == b"a/b/1.dcm"
    assert stores.read(films[3]) == b"inside"
    with pytest.raises(UnreadableFile):
        stores.read(films[4])


def test_credentials_in_an_address_are_refused():
    with pytest.raises(SourceError, match="environment"):
        list(Stores().films("s3://key:secret@bucket/films", []))


class Refusing(BaseHTTPRequestHandler):
    """An S3 that says no, in S3's words."""

    def _answer(self):
        told = f"<Error><Code>{self.server.code}</Code><Message>no</Message></Error>".encode()
        self.send_response(404 if self.server.code == "NoSuchBucket" else 403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else told)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("NoSuchBucket", "there is no such bucket"),
        ("AccessDenied", "there are no credentials, or they do not open it"),
        ("InvalidAccessKeyId", "there are no credentials, or they do not open it"),
    ],
)
def test_a_bucket_that_cannot_be_opened_is_told_in_a_sentence(code, told, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # where no credentials are, they would be asked for there
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.code = code
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"s3://films/a?scheme=http&endpoint_override=127.0.0.1:{server.server_port}&region=us-east-1"

    assert main(["batch", address, "--engine", "ray", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"kneeoa: cannot list s3://films/a: {told}\n"
    with pytest.raises(ValueError, match=f"^cannot write to s3://films/a: {told}$"):
        Parts(address)
    server.shutdown()
    server.server_close()


def test_the_account_of_a_container_is_part_of_a_films_name():
    films = [Remote(f"abfs://films@{account}.dfs.core.windows.net", "films/a/1.dcm", None, "") for account in "ab"]

    assert films[0].place == "abfs://films@a.dfs.core.windows.net/a/1.dcm"
    assert films[0].place != films[1].place


def test_nothing_to_grade_starts_nothing(tmp_path):
    with pytest.raises(NoRadiographs):
        engine.run([str(tmp_path)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_actors_answer_as_the_library_does(tmp_path, service, sample):
    (tmp_path / "b.dcm").write_bytes(sample)
    (tmp_path / os.fsdecode(b"c\xff.dcm")).write_bytes(b"no film")
    films = [*walk([str(tmp_path)]), Source(tmp_path / "gone.dcm")]
    whole = Whole(Detect, Stores(), False, True, 60.0)
    block = as_block(films)
    told = list(unpacked(whole(block)))

    assert list(unpacked(whole.grade(whole.detect(block)))) == told  # as on a cluster with GPUs, in two actors
    expected = [reply.message for reply in service.grade_many([film.path for film in films])]
    for film, answer, reply in zip(films, told, expected, strict=True):
        rows = [{name: row[name] for name in COLUMNS} for row in answer["rows"]]
        names = {row["file"] for row in rows}
        assert [row | {"file": ""} for row in rows] == json.loads(json.dumps(rows_of("", reply)))
        assert names == {film.name.encode(errors="backslashreplace").decode()}
        assert answer["entry"][0] == film.place
    assert [answer["entry"][3] for answer in told] == [None, "unsupported_media_type", "unreadable_file"]
    assert told[0]["rows"][0]["patient_id"] == "PHANTOM"


def test_what_hangs_ends_its_process():
    began = time.monotonic()
    if not (child := os.fork()):
        os.close(2)
        with at_most(0.1):
            time.sleep(60)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 1
    assert time.monotonic() - began < 30


class Pool:
    """Two actors; a block with a film that kills is lost whole."""

    actors = 2

    def __init__(self, killers):
        self.killers, self.asked = killers, []

    def answers(self, films, block):
        for at in range(0, len(films), block):
            some = films[at : at + block]
            self.asked.append(len(some))
            if not {film.path.name for film in some} & self.killers:
                for film in some:
                    told = Entry(film.place, film.stamp, "ok", None, "g", 1)
                    yield {
                        "name": film.name,
                        "entry": list(told),
                        "rows": [dict.fromkeys(COLUMNS) | {"file": film.name}],
                    }


def test_a_film_that_kills_its_actor_ends_as_a_row_and_costs_no_other_its_own(tmp_path):
    source, out = tmp_path / "films", tmp_path / "out"
    source.mkdir()
    for i in range(100):
        (source / f"{i:03}.dcm").write_bytes(b"film")
    parts = Parts(str(out))
    parts.load()
    pool = Pool({"007.dcm", "063.dcm"})
    engine._grade(walk([str(source)]), parts, [str(source)], pool)
    parts.flush()

    assert pool.asked == [12] * 8 + [4] + [8] * 3 + [1] * 16
    table = dataset.dataset(out, partitioning="hive").to_table()
    codes = dict(zip(table["file"].to_pylist(), table["error_code"].to_pylist(), strict=True))
    assert table.num_rows == len(codes) == 100
    assert {os.path.basename(name): code for name, code in codes.items() if code} == {
        "007.dcm": "internal_error",
        "063.dcm": "internal_error",
    }
    assert parquet.read_schema(next(out.rglob("part-*"))).names == COLUMNS
    parts.close()

    again = Parts(str(out))  # and the same command asks for those two once more, for no other
    again.load()
    engine._grade(walk([str(source)]), again, [str(source)], second := Pool(set()))
    assert sum(second.asked) == 2
    again.close()


def test_metrics_have_the_names_and_labels_of_the_servers():
    declared = yaml.safe_load((ROOT / "handlers/metrics.yaml").read_text())["model_metrics"]
    known = {metric["name"]: (kind, metric["dimensions"]) for kind, all_ in declared.items() for metric in all_}
    ours = {name: (kind.__name__.lower(), list(labels)) for name, (kind, labels) in NAMES.items()}

    assert ours.items() <= known.items()
    assert known.keys() - ours.keys() == {"kneeoa_requests_within_total"}  # there is no gateway that saw a film begin


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["s3://bucket", "--out", "a.csv"], "s3://bucket needs --engine ray"),
        ([".", "--out", "a.csv", "--address", "auto"], "--address needs --engine ray"),
        ([".", "--out", "folder"], "ends in .csv, .jsonl, .parquet"),
    ],
)
def test_without_the_engine_the_command_is_as_it_was(arguments, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["batch", *arguments])

    assert ended.value.code == 2
    assert told in capsys.readouterr().err
