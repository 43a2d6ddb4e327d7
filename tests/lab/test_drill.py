"""The drill's report from a record, and the drill itself, from beginning to end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab.drill.record import Record, Sample, Step
from lab.drill.report import page, pictures, write
from tests.lab.conftest import ROOT, environment


def sample(at: float, state: str, routing: str, answer: list[str] | None) -> Sample:
    return Sample(at, {"us-west-2": {"alb-us-east-1": state}}, {"us-east-1": routing}, {"us-west-2": answer}, [], 0)


RECORD = Record(
    region="us-east-1",
    speed=10,
    began=0.0,
    steps=[Step("us-east-1 is lost", True, 10, 1, "gone"), Step("<b>drained</b>", True, 60, 50, "off & away")],
    samples=[
        sample(0, "up", "on", ["us-west-2"]),
        sample(10, "down", "on", ["us-west-2"]),
        sample(20, "down", "off", None),
        sample(30, "up", "off", None),
        sample(40, "up", "on", ["us-west-2"]),
    ],
    faults=[{"name": "region-down", "region": "us-east-1", "since": 5.0, "until": 35.0}],
    pages=[
        {
            "number": 1,
            "severity": "critical",
            "urgent": True,
            "summary": "<us-east-1> is down",
            "opened": 12.0,
            "resolved": None,
            "page": {"description": "d", "seen_from": [], "what_to_do": {"command": "aws ssm … --parameters Region='a b'"}, "links": {}},
            "notifications": [],
        }
    ],
)


def test_the_report_stands_alone(tmp_path: Path) -> None:
    """One HTML file with its pictures in it, whatever was in the texts; the JSON beside it holds everything."""
    report = write(RECORD, tmp_path)
    text = report.read_text()
    assert "Everything was observed" in text
    assert "&lt;b&gt;drained&lt;/b&gt;" in text
    assert "&lt;us-east-1&gt; is down" in text
    assert "<script" not in text
    assert text.count("<svg") == 3
    assert json.loads((tmp_path / "observations.json").read_text())["ok"] is True
    for picture in tmp_path.glob("*.svg"):
        ET.parse(picture)


def test_the_pictures_say_what_happened() -> None:
    """Rows and legend are there by name."""
    drawn = pictures(RECORD)
    assert all(word in drawn["timeline"] for word in ("fault in force", "page open", "routing control off"))
    assert "us-west-2 → alb-us-east-1" in drawn["matrix"]
    assert "no answer" in drawn["answers"]


def test_a_step_that_was_not_seen_is_not_glossed_over() -> None:
    """One missing observation, or no step at all, and the drill has failed."""
    assert RECORD.ok
    failed = replace(RECORD, steps=[*RECORD.steps, Step("resolved", False, 90, 30, "still open")])
    assert not failed.ok
    assert "Not everything was observed" in page(failed)
    assert not replace(RECORD, steps=[]).ok


@pytest.mark.lab
@pytest.mark.slow
def test_the_drill_is_observed_from_beginning_to_end(lab_folder: Path, tmp_path: Path) -> None:
    """Exit code 0, every step seen, exactly one page, and nothing left."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy.py"), "lab", "drill", "--out", str(tmp_path)],
        env=environment(lab_folder / "lab"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    observed = json.loads((tmp_path / "observations.json").read_text())
    assert observed["ok"]
    assert len(observed["steps"]) == 11
    assert [page["page"]["subject"] for page in observed["pages"] if page["urgent"]] == ["us-east-1"]
    assert not (lab_folder / "lab").exists()
