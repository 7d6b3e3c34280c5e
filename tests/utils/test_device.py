"""Cores that torch and the loading processes share."""

import os

import pytest
import torch

from segvit.utils.device import available_cores, leave_cores_to


@pytest.mark.parametrize("cores, workers, threads", [({0}, 0, 1), ({0}, 2, 1), ({0, 1, 2, 5}, 1, 3)])
def test_torch_gets_the_cores_of_this_process_alone(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], workers: int, threads: int
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert available_cores() == len(cores)
    leave_cores_to(workers)
    assert seen == [threads]


def test_without_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
