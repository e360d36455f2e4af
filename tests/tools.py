"""Programs that some tests need beside Python's packages: without one they are skipped, and a run ends with how to get it.

With KNEEOA_REQUIRE_TOOLS set such a run fails, so that a machine that checks everything never skips in silence.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
PACKAGES = {  # program, or file of one → package of Debian
    "amtool": "prometheus-alertmanager",
    "bwrap": "bubblewrap",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "dciodvfy": "dicom3tools",
    "DicomSRValidator": "pixelmed-apps",
    "dsr2html": "dcmtk",
    "dsrdump": "dcmtk",
    "g++": "g++",
    "haproxy": "haproxy",
    "kubectl": "kubernetes-client",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "Orthanc": "orthanc",
    DICOMWEB: "orthanc-dicomweb",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
REASON = "not installed: "


def there(program: str) -> bool:
    """Whether it can be run; some live where only root's PATH leads."""
    return any(shutil.which(program, path=path) for path in (None, "/usr/sbin")) or Path(program).is_file()


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of them is missing."""
    missing = [program for program in programs if not there(program)]
    return pytest.mark.skipif(bool(missing), reason=REASON + ", ".join(missing))


def missing(reporter: pytest.TerminalReporter) -> Counter[str]:
    """Programs that tests were skipped for, and how many."""
    reasons = [report.longrepr[2] for report in reporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]
    lists = [found[1].split(", ") for reason in reasons if (found := re.search(f"{REASON}(.*)", reason))]
    return Counter(program for programs in lists for program in programs)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # around all others: what it says comes last
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """What is missing, for whom, and how to get it; the last lines of a run."""
    yield
    if counted := missing(terminalreporter):
        terminalreporter.section("programs that are missing")
        for program, number in sorted(counted.items()):
            tests = "test was" if number == 1 else "tests were"
            terminalreporter.line(f"{Path(program).name} (Debian: {PACKAGES[program]}): {number} {tests} skipped")
        terminalreporter.line("To install them, where apt is there: make test-tools")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With KNEEOA_REQUIRE_TOOLS a run that skipped for want of a program fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("KNEEOA_REQUIRE_TOOLS") and reporter and missing(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def install() -> int:
    """Install what is missing; apt's exit code."""
    packages = sorted({package for program, package in PACKAGES.items() if not there(program)})
    if not packages:
        return 0
    if not shutil.which("apt-get"):
        raise SystemExit(f"there is no apt-get here; install what Debian calls {', '.join(packages)}")
    apt = [*([] if os.geteuid() == 0 else ["sudo"]), "apt-get", "-qq"]
    steps = [["update"], ["install", "--yes", "--no-install-recommends", *packages]]
    return next((code for step in steps if (code := subprocess.run([*apt, *step]).returncode)), 0)


if __name__ == "__main__":
    sys.exit(install())
