"""Loggers without a package here: stand-ins with the signatures of their documentation get all that a run logs."""

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

from segvit.config import LoggerName, TrainConfig
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.evaluation.examples import Shot
from segvit.training.loggers import RunLog, _tracker, check_loggers
from tests.helpers.tiny import tiny_run

Calls = list[tuple[str, Any]]


class Config(dict[str, Any]):
    """Settings of a service that allow a change only if asked."""

    def update(self, values: dict[str, Any], *, allow_val_change: bool) -> None:  # type: ignore[override]
        assert allow_val_change
        super().update(values)


class Comet:
    """An experiment of comet_ml.start."""

    def __init__(self, calls: Calls, project_name: str) -> None:
        self.calls = calls
        calls.append(("project", project_name))

    def set_name(self, name: str) -> None:
        self.calls.append(("run", name))

    def set_step(self, step: int) -> None:
        assert step == 3

    def log_parameters(self, parameters: dict[str, Any]) -> None:
        self.calls.append(("settings", parameters))

    def log_metric(self, name: str, value: float, step: int) -> None:
        self.calls.append(("number", (name, value, step)))

    def log_image(self, image_data: Any, name: str, step: int) -> None:
        self.calls.append(("picture", (name, image_data, step)))

    def end(self) -> None:
        self.calls.append(("end", None))


class ClearML:
    """A task of ClearML, and its logger."""

    def __init__(self, calls: Calls, project_name: str, task_name: str, **options: bool) -> None:
        assert options == {"reuse_last_task_id": False, "auto_connect_frameworks": False}
        self.calls = calls
        calls += [("project", project_name), ("run", task_name)]

    def connect_configuration(self, configuration: dict[str, Any]) -> None:
        self.calls.append(("settings", configuration))

    def get_logger(self) -> "ClearML":
        return self

    def report_scalar(self, title: str, series: str, value: float, iteration: int) -> None:
        self.calls.append(("number", (title, value, iteration)))

    def report_image(self, title: str, series: str, iteration: int, image: Any) -> None:
        self.calls.append(("picture", (title, image, iteration)))

    def close(self) -> None:
        self.calls.append(("end", None))


class Aim:
    """A run of Aim."""

    def __init__(self, calls: Calls, repo: str, experiment: str) -> None:
        self.calls = calls
        calls += [("repo", repo), ("project", experiment)]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "name":
            self.calls.append(("run", value))
        super().__setattr__(name, value)

    def __setitem__(self, key: str, value: Any) -> None:
        self.calls.append(("settings", value))

    def track(self, value: Any, name: str, step: int) -> None:
        kind = "number" if isinstance(value, float) else "picture"
        self.calls.append((kind, (name, value, step)))

    def close(self) -> None:
        self.calls.append(("end", None))


class Live:
    """dvclive.Live."""

    def __init__(self, calls: Calls, dir: str, dvcyaml: str, resume: bool) -> None:
        assert not resume and dvcyaml == str(Path(dir) / "dvc.yaml")
        self.calls, self.step = calls, 0
        calls.append(("folder", dir))

    def log_params(self, params: dict[str, Any]) -> None:
        self.calls.append(("settings", params))

    def log_metric(self, name: str, val: float) -> None:
        self.calls.append(("number", (name, val, self.step)))

    def log_image(self, name: str, val: Any) -> None:
        name, step = name.removesuffix(".png").rsplit("/", 1)
        self.calls.append(("picture", (name, val, int(step))))

    def next_step(self) -> None:
        self.step += 1

    def end(self) -> None:
        self.calls.append(("end", None))


class Run:
    """A run of SwanLab or Trackio."""

    def __init__(self, calls: Calls, project: str, run: str) -> None:
        self.calls = calls
        calls += [("project", project), ("run", run)]

    def log(self, values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            if isinstance(value, float):
                self.calls.append(("number", (name, value, step)))
            else:
                (picture,) = value if isinstance(value, list) else [value]
                self.calls.append(("picture", (name, picture, step)))

    def finish(self) -> None:
        self.calls.append(("end", None))


def standins(calls: Calls) -> dict[LoggerName, dict[str, dict[str, Any]]]:
    """Modules of each service and their contents."""
    none = types.SimpleNamespace(current_task=lambda: None, init=lambda **given: ClearML(calls, **given))
    metric = types.SimpleNamespace(could_log=lambda value: isinstance(value, float))

    def swanlab(project: str, experiment_name: str, logdir: str) -> Run:
        calls.append(("folder", logdir))
        return Run(calls, project, experiment_name)

    start: dict[str, Callable[..., Any]] = {
        "comet_ml": lambda project_name: Comet(calls, project_name),
        "aim": lambda repo, experiment: Aim(calls, repo, experiment),
        "dvclive": lambda **given: Live(calls, **given),
        "trackio": lambda project, name: Run(calls, project, name),
    }
    return {
        "comet_ml": {"comet_ml": {"__version__": "3.49.0", "start": start["comet_ml"]}},
        "clearml": {"clearml": {"Task": none}},
        "aim": {"aim": {"Run": start["aim"], "Image": lambda image, caption: np.asarray(image)}},
        "dvclive": {"dvclive": {"Live": start["dvclive"]}, "dvclive.plots": {"Metric": metric}},
        "swanlab": {"swanlab": {"init": swanlab, "config": Config(), "Image": np.asarray}},
        "trackio": {"trackio": {"init": start["trackio"], "config": Config(), "Image": np.asarray}},
    }


@pytest.fixture
def config(tmp_path: Path) -> Iterator[TrainConfig]:
    (tmp_path / "a run").mkdir()
    return tiny_run(tmp_path / "a run", steps=4)


def shot() -> Shot:
    """Pictures of one colour each."""
    picture = Image.new("RGB", (8, 6), (10, 200, 30))
    names = ("photo", "labels", "prediction", "errors", "overlay")
    shares = np.full(8, 1 / 8)
    return Shot(index=7, name="x", shares=shares, maps=None, **dict.fromkeys(names, picture))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(standins([])))
def test_a_service_gets_settings_numbers_and_pictures(
    name: LoggerName, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Calls = []
    modules = standins(calls)[name]
    for place, content in modules.items():
        module = types.ModuleType(place)
        monkeypatch.setattr(module, "__spec__", object())
        for key, value in content.items():
            monkeypatch.setattr(module, key, value, raising=False)
        monkeypatch.setitem(sys.modules, place, module)
    config = replace(config, loggers=(name,))
    check_loggers(config.loggers)
    log = RunLog(config, Accelerator(cpu=True), start=0)
    log.write(3, {"loss": 0.5, "iou": {"sky": 0.25}})
    log.pictures(3, [shot()], load_spec("shapes"))
    log.close()

    def of(kind: str) -> list[Any]:
        return [value for called, value in calls if called == kind]

    assert of("number") == [("loss", 0.5, 3)]
    ((title, picture, step),) = of("picture")
    assert (title, step) == ("validation/7", 3)
    picture = np.asarray(picture)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert (picture == (10, 200, 30)).all(axis=2).sum() > 3 * 8 * 6  # enlarged
    settings = of("settings") or [modules[name]["config"]]
    assert settings[0]["steps"] == 4 and settings[0]["model.backbone"] == config.model.backbone
    assert calls[-1] == ("end", None) and len(of("end")) == 1
    if name == "dvclive":
        assert of("folder") == [str(config.output / "dvclive")]
    else:
        assert of("run") == ["a run"] and of("project") == ["segvit"]
        assert of("folder") == ([str(config.output / "swanlab")] if name == "swanlab" else [])
        assert of("repo") == ([str(tmp_path)] if name == "aim" else [])


def test_clearml_goes_where_its_environment_says(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARML_PROJECT", "roads")
    monkeypatch.setenv("CLEARML_TASK", "first")
    settings = _tracker("clearml", config.output, 0).init_kwargs
    assert (settings["project_name"], settings["task_name"]) == ("roads", "first")


@pytest.mark.parametrize("name", get_args(LoggerName))
def test_a_missing_package_says_what_to_install(name: LoggerName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"logger {name} is not installed: pip install {name}, .*--empty-loggers"):
        check_loggers([name])


def test_a_logger_that_an_older_accelerate_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segvit.training.loggers.LOGGER_TYPE_TO_CLASS", {"wandb": object})
    with pytest.raises(UserError, match=r"trackio needs a newer accelerate: pip install --upgrade .*--loggers wandb"):
        check_loggers(["trackio", "wandb"])
