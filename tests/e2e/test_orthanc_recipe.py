"""The script that makes an Orthanc send radiographs to `kneeoa pacs` by itself."""

import pydicom

from kneeoa.reporting.dicom import deliverables
from kneeoa_cli.pacs.provider import listen
from tests.conftest import ROOT
from tests.e2e.orthanc import Orthanc, running
from tests.e2e.waiting import until
from tests.tools import needs

FILM = ROOT / "samples/moderate_oa.dcm"


def sent(orthanc: Orthanc) -> list[dict]:
    """What it sent somewhere, and is done with."""
    return [
        job for job in orthanc.ask("jobs?expand") if job["Type"] == "DicomModalityStore" and job["State"] == "Success"
    ]


@needs("Orthanc")
def test_a_complete_study_is_sent_but_not_what_kneeoa_made_of_it(service, tmp_path):
    """The reports come in like any other object, and make the study change again: films go out anew, reports never."""
    data, came = FILM.read_bytes(), []
    film = str(pydicom.dcmread(FILM, stop_before_pixels=True).SOPInstanceUID)
    made = deliverables(data, service.grade(data).message)
    script = str(ROOT / "deploy/orthanc/to_kneeoa.lua")

    with running(tmp_path, LuaScripts=[script], StableAge=1) as orthanc:
        provider = listen(("127.0.0.1", orthanc.ours), "KNEEOA", ["ORTHANC"], lambda uid, _: came.append(str(uid)))
        try:
            orthanc.upload(data)
            until(lambda: came == [film], 60)
            (series,) = orthanc.ask("series")
            for report in made.values():
                orthanc.upload(report)
            until(lambda: len(sent(orthanc)) > 1, 60)
            assert {tuple(job["Content"]["ParentResources"]) for job in sent(orthanc)} == {(series,)}
        finally:
            provider.shutdown()

    assert set(came) == {film}
