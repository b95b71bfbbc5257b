"""The precision that suits a device."""

import pytest
import torch

from lab1.engine.devices import find_precision


@pytest.mark.parametrize("found", [{"avx512_bf16": True}, {"amx_bf16": True}])
def test_precision_is_bf16_where_the_processor_has_it(monkeypatch, found):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert find_precision("auto", cpu) == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(found, False), raising=False)
    assert find_precision("auto", cpu) == "fp32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert find_precision("auto", cpu) == "fp32"
    assert find_precision("bf16", cpu) == "bf16"
    assert find_precision("auto", torch.device("mps")) == "fp32"
