"""Where work is tried whose device is another machine's."""

from __future__ import annotations

import pytest
import torch

from pythiageo.compute.device import find_device_here


def test_work_for_a_gpu_that_is_not_here_is_tried_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [find_device_here(name) for name in ("auto", "cpu", "cuda", "cuda:3", "split")] == ["cpu"] * 5
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [find_device_here(name) for name in ("auto", "cpu", "cuda:1", "split")] == [
        "cuda:0",
        "cpu",
        "cuda:1",
        "cuda:0",
    ]
