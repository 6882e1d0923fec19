"""Where work is tried whose device is another machine's."""

from __future__ import annotations

import pytest
import torch

from pythiageo.compute.allocator import take_large_pages
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


@pytest.mark.parametrize("count", [0, 3, 2**20 - 1, 2**20, 3 * 2**20 + 5])
def test_large_pages_are_advice_that_changes_no_value(count: int) -> None:
    before, tensor, behind = torch.ones(count), torch.empty(count), torch.ones(count)
    take_large_pages(tensor)
    tensor.copy_(torch.arange(count) % 1000)
    assert torch.equal(tensor, (torch.arange(count) % 1000).float())
    assert bool((before == 1).all() and (behind == 1).all())
