"""Writes base/rules.yaml, the alerts of ../monitoring/rules.yml for Prometheus' operator: python -m deploy.kubernetes.rules."""

from pathlib import Path

import yaml

SOURCE = Path(__file__).parent.parent / "monitoring/rules.yml"
TARGET = Path(__file__).parent / "base/rules.yaml"
HEAD = """\
# Made of deploy/monitoring/rules.yml: python -m deploy.kubernetes.rules
"""


def resource() -> str:
    """The PrometheusRule as YAML, as it should be on disk."""
    told = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "kneeoa"},
        "spec": yaml.safe_load(SOURCE.read_text()),
    }
    return HEAD + yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=1000)


if __name__ == "__main__":
    TARGET.write_text(resource())
