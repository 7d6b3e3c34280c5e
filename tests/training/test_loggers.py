"""Where a run's numbers and pictures go: metrics.jsonl, TensorBoard for real, stand-ins for the services."""

import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import segvit.data.dataset as dataset_module
from segvit.config import TrainConfig
from segvit.errors import UserError
from segvit.reports.records import read_records
from segvit.training.train import train
from segvit.training.validation import picture_indices
from tests.helpers.tiny import tiny_run

STEPS = 4


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Four steps of a tiny model, two validations on five scenes."""
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 5})
    return tiny_run(tmp_path / "a run", steps=STEPS, eval_every=2, loggers=("tensorboard",))


def events(folder: Path) -> EventAccumulator:
    reader = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    reader.Reload()
    return reader


def test_tensorboard_holds_every_number_and_the_pictures(config: TrainConfig) -> None:
    train(config)
    seen = events(config.output)
    records = list(read_records(config.output))
    for key in ("loss", "lr", "miou"):
        ours = [(record["step"], record[key]) for record in records if key in record]
        theirs = [(scalar.step, scalar.value) for scalar in seen.Scalars(key)]
        assert [step for step, _ in theirs] == [step for step, _ in ours]
        assert [value for _, value in theirs] == pytest.approx([value for _, value in ours], rel=1e-6)
    assert set(seen.Tags()["images"]) == {f"validation/{index}" for index in picture_indices(5)}
    assert [image.step for image in seen.Images("validation/0")] == [2, 4]


def test_pictures_lie_in_the_run_folder(config: TrainConfig) -> None:
    train(replace(config, loggers=()))
    files = sorted(path.name for path in (config.output / "validation").iterdir())
    assert files == ["step-0000002.png", "step-0000004.png"]
    with Image.open(config.output / "validation" / files[0]) as picture:
        assert min(picture.size) > 600  # three columns, four rows of enlarged scenes
    assert not (config.output / "tensorboard").exists()
    assert len(list(read_records(config.output))) == STEPS + 2


def test_a_resumed_run_logs_no_step_twice(config: TrainConfig) -> None:
    def stop(step: int, _: Any) -> None:
        if step == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train(config, on_step=stop)
    log = config.output / "metrics.jsonl"
    with log.open("a") as file:
        file.write('{"step": 3, "lo')  # a kill while it writes
    train(replace(config, loggers=("tensorboard",)), resume=True)
    assert [record["step"] for record in read_records(config.output) if "loss" in record] == [1, 2, 3, 4]
    assert [scalar.step for scalar in events(config.output).Scalars("loss")] == [1, 2, 3, 4]
    assert not log.with_name("metrics.jsonl.partial").exists()


@pytest.mark.parametrize(
    "count, expected", [(0, []), (1, [0]), (3, [0, 1, 2]), (8, [1, 3, 5, 7]), (100, [12, 37, 62, 87])]
)
def test_the_same_few_images_are_drawn(count: int, expected: list[int]) -> None:
    assert picture_indices(count) == expected


class Calls(list[tuple[str, Any]]):
    """What a stand-in was told."""

    def of(self, name: str) -> list[Any]:
        return [told for called, told in self if called == name]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A stand-in for W&B."""
    calls = Calls()

    class Run:
        def log(self, values: dict[str, Any], step: int) -> None:
            calls.append(("log", (step, values)))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**settings: Any) -> Run:
        calls.append(("init", settings))
        return Run()

    module = types.ModuleType("wandb")
    settings = types.SimpleNamespace(update=lambda values, **_: calls.append(("config", values)))
    monkeypatch.setattr(module, "__spec__", object())
    for name, value in (("init", init), ("config", settings), ("Image", lambda pixels: pixels.shape)):
        monkeypatch.setattr(module, name, value, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A stand-in for MLflow."""
    calls = Calls()
    module = types.ModuleType("mlflow")
    limits = types.SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=100)
    monkeypatch.setattr(module, "__spec__", object())
    functions = {
        "utils": types.SimpleNamespace(validation=limits),
        "search_experiments": lambda **_: [],
        "create_experiment": lambda name, **_: calls.append(("experiment", name)) or "1",  # type: ignore[func-returns-value]
        "start_run": lambda **settings: calls.append(("init", settings)),
        "log_params": lambda values: calls.append(("config", values)),
        "log_metrics": lambda values, step: calls.append(("log", (step, values))),
        "log_artifact": lambda local_path, artifact_path: calls.append(("picture", (local_path, artifact_path))),
        "end_run": lambda: calls.append(("finish", None)),
    }
    for name, value in functions.items():
        monkeypatch.setattr(module, name, value, raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return calls


def numbers_of(run: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl without the IoU of each class, which is for the report alone."""
    return [{key: value for key, value in record.items() if key != "iou"} for record in read_records(run)]


def test_wandb_gets_settings_numbers_and_pictures(config: TrainConfig, wandb: Calls) -> None:
    train(replace(config, loggers=("wandb",)))
    (start,) = wandb.of("init")
    assert start["project"] == "segvit" and start["name"] == "a run"
    (settings,) = wandb.of("config")
    assert settings["optim.lr"] == config.optim.lr and settings["model.backbone"] == config.model.backbone
    numbers = [told for told in wandb.of("log") if not any(key.startswith("validation/") for key in told[1])]
    assert [{"step": step, **values} for step, values in numbers] == numbers_of(config.output)
    pictures = [told for told in wandb.of("log") if any(key.startswith("validation/") for key in told[1])]
    assert len(pictures) == 2 * len(picture_indices(5))
    step, values = pictures[0]
    assert step == 2 and values["validation/0"][0][2] == 3  # (H, W, 3)
    assert len(wandb.of("finish")) == 1


def test_mlflow_gets_settings_numbers_and_pictures(config: TrainConfig, mlflow: Calls) -> None:
    train(replace(config, loggers=("mlflow", "tensorboard")))
    assert mlflow.of("experiment") == ["segvit"]
    assert mlflow.of("init")[0]["run_name"] == "a run"
    settings = {name: value for batch in mlflow.of("config") for name, value in batch.items()}  # 100 at a time
    assert settings["steps"] == STEPS
    assert [{"step": step, **values} for step, values in mlflow.of("log")] == numbers_of(config.output)
    folder = config.output / "validation"
    assert mlflow.of("picture") == [(str(folder / f"step-000000{step}.png"), "validation") for step in (2, 4)]
    assert events(config.output).Scalars("loss")
    assert len(mlflow.of("finish")) == 1


def test_a_logger_that_is_not_installed_is_told_before_anything_is_done(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"logger wandb is not installed: pip install wandb.*--loggers tensorboard"):
        train(replace(config, loggers=("tensorboard", "wandb")))
    assert not config.output.exists()


def test_a_logger_that_does_not_start_is_told(
    config: TrainConfig, wandb: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(UserError, match="cannot be logged by wandb: no API key"):
        train(replace(config, loggers=("wandb",)))


@pytest.mark.parametrize("text", ["{}\n", "[]\n", '{"step": 1}\nno json\n{"step": 2}\n', '{"step": "1"}\n'])
def test_a_log_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match="is not a record of a step"):
        list(read_records(tmp_path))


def test_records_are_read_as_written(tmp_path: Path) -> None:
    records = [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "miou": 0.5}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step"')
    assert list(read_records(tmp_path)) == records
