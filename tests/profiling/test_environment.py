"""Versions and devices for reports of bugs: `segvit info` without a name."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from rich.console import Console

from segvit.cli.flags import BackboneFlags
from segvit.cli.info import info
from segvit.errors import UserError
from segvit.profiling import environment as module
from segvit.profiling.environment import environment


def test_versions_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("torch", "no-such-package", "timm"))
    found = environment()
    assert found.packages == {"torch": version("torch"), "timm": version("timm")}
    assert (found.python, found.threads) == (platform.python_version(), torch.get_num_threads())
    assert found.device.startswith("cuda" if torch.cuda.is_available() else ("cpu", "mps"))
    with (console := Console(width=200)).capture() as caught:
        console.print(found.tables())
    for text in (found.python, found.device, found.system, *found.packages, *found.packages.values()):
        assert text in caught.get()


def test_info_without_a_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "zebra")
    info(json=Path("-"))
    text = capsys.readouterr().out
    assert json.loads(text) == environment().to_dict()
    for private in ("zebra", str(Path.home()), str(Path.cwd()), "://"):
        assert private not in text
    for flags in ({"size": (8, 8)}, {"gpus": 2}, {"tflops": 3.0}, {"backbone": BackboneFlags(structure="shrunk")}):
        with pytest.raises(UserError, match="no model, config or backbone given"):
            info(**flags)  # type: ignore[arg-type]
