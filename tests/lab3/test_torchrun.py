"""Lab 3 under torchrun: one line says what to use instead."""

import pytest

from lab1.engine import distributed
from lab1.engine.config import UsageError
from lab3 import config as lab3_config
from lab3.train_dqn import Config


def test_torchrun_is_refused_with_what_to_use_instead(monkeypatch):
    monkeypatch.setattr(lab3_config, "prepare", lambda config: None)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(UsageError) as refused:
        lab3_config.prepare_torch(Config())
    assert str(refused.value) == (
        "lab 3 trains an agent in one process, without torchrun; for several agents side by side use "
        "lab3/compare_agents.py --workers 2"
    )
