"""The packages of a CycloneDX bill of materials with their licences, a line each."""

import json
import sys
from pathlib import Path
from typing import Any


def licence(component: dict[str, Any]) -> str:
    """What a component says of its licence: an SPDX expression, identifiers or names."""
    told = [each.get("expression") or each["license"].get("id") or each["license"]["name"]
            for each in component.get("licenses", [])]  # fmt: skip
    return "; ".join(dict.fromkeys(told)) or "not said"


def listed(bill: dict[str, Any]) -> list[str]:
    """A line a package: name, version, licence."""
    return [f"{each['name']} {each.get('version', '')}: {licence(each)}" for each in bill["components"]]


if __name__ == "__main__":
    print("\n".join(listed(json.loads(Path(sys.argv[1]).read_text()))))
