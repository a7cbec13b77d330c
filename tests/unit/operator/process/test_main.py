"""The command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from s1vl_operator.__main__ import main


def test_the_crd_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["metadata"]["name"] == "s1vldeployments.s1vl.io"
    assert main(["crd", "--format", "markdown"]) == 0
    assert "spec.tenants" in capsys.readouterr().out


def test_printing_the_crd_loads_no_client() -> None:
    code = """
import sys
from s1vl_operator.__main__ import main
main(["crd"])
print(sorted({"kopf", "kubernetes"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
