"""A series goes on only from what its own script wrote."""

import json

import pytest
import torch

from lab1.engine import logbook
from lab1.engine.config import TrainConfig, UsageError
from lab1.engine.series import read_entries, write_series
from lab1.sweep_depth import summary

ENTRY = {"depth": 2, "seed": 0, "residual": False, "parameters": 5, "macs": 7, "seconds": 1.0}
SCRIPT = "lab1/sweep_depth.py"


def test_entries_are_read_and_none_where_there_is_no_file(tmp_path):
    path = tmp_path / "results.json"
    assert read_entries(path, SCRIPT, summary) == []
    runs = [ENTRY | {"test": {"accuracy": 0.5}}]
    path.write_text(json.dumps({"script": SCRIPT, "runs": runs}), encoding="utf-8")
    assert read_entries(path, SCRIPT, summary) == read_entries(path) == runs


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "it holds a list"),
        (3, "it holds a number"),
        ({}, "is of another script: None"),
        ({"script": "lab3/compare_agents.py", "runs": []}, "is of another script: 'lab3/compare_agents.py'"),
        ({"script": SCRIPT}, "'runs' is missing"),
        ({"script": SCRIPT, "runs": 3}, "not iterable"),
        ({"script": SCRIPT, "runs": [3]}, "is not as it was written"),
        ({"script": SCRIPT, "runs": [{}]}, "is missing"),
        ({"script": SCRIPT, "runs": [ENTRY | {"test": {"accuracy": "high"}}]}, "is not as it was written"),
    ],
)
def test_other_results_are_refused_in_one_line(tmp_path, content, why):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_entries(path, SCRIPT, summary)
    (line,) = str(caught.value).splitlines()
    assert str(path) in line
    assert why in line


def test_results_say_on_which_machines_the_runs_were_made(tmp_path, monkeypatch):
    def write(machine):
        monkeypatch.setattr(logbook, "environment", lambda device: {"device": machine})
        config = TrainConfig()
        config.dataset = "digits"
        write_series(SCRIPT, config, torch.device("cpu"), tmp_path, [], [ENTRY])
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        return results["environment"]["device"], [one["device"] for one in results.get("earlier_environments", [])]

    assert write("a GPU") == write("a GPU") == ("a GPU", [])
    assert write("a laptop") == ("a laptop", ["a GPU"])
    assert write("a server") == ("a server", ["a GPU", "a laptop"])
    assert write("a laptop") == ("a laptop", ["a GPU", "a server"])
