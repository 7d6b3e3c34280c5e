"""`segvit bench` and `segvit.bench`: what is timed is what predict does, and the numbers hang together."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segvit
from segvit.cli import main as cli
from segvit.config import ModelConfig
from segvit.errors import UserError
from segvit.pictures import speeds
from segvit.profiling import benchmark
from segvit.profiling.benchmark import made_up_logits
from segvit.profiling.timings import PARTS, Bench, Case, Timing

TINY = ModelConfig(backbone="vit_tiny_patch16_224", embed_dim=32, depth=3, num_heads=1, image_size=64)


@pytest.fixture(scope="module")
def model() -> segvit.SegViT:
    torch.manual_seed(0)
    return segvit.create_model(config=TINY, num_classes=5).eval()


@pytest.fixture(scope="module")
def model_file(model: segvit.SegViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    model.save(path)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`segvit bench`, and what it prints."""
    monkeypatch.setenv("COLUMNS", "120")

    def command(*arguments: Any) -> str:
        monkeypatch.setattr("sys.argv", ["segvit", "bench", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as leave:
            return f"exit {leave.code}: {' '.join(capsys.readouterr().err.replace('│', ' ').split())}"
        return capsys.readouterr().out

    return command


def timing(*passes: tuple[float, ...], batch: int = 1) -> Timing:
    return Timing(case=Case(size=(64, 64), batch=batch, precision="fp32"), passes=passes, peak=None)


def test_statistics_of_known_passes() -> None:
    seen = timing((1, 2, 1), (2, 2, 2), (1, 2, 2), (8, 2, 2), (1, 1, 1), batch=4)  # 4, 6, 5, 12, 3 seconds
    assert seen.latency == 5
    assert seen.quartiles == (4, 6)
    assert seen.throughput == 4 / 5
    assert seen.shares == {"backbone": 1 / 5, "head": 2 / 5, "label map": 2 / 5}
    assert timing((1, 2, 1)).quartiles == (4, 4)


def test_every_combination_once_in_order(model: segvit.SegViT) -> None:
    steps: list[tuple[int, int]] = []
    result = segvit.bench(
        model,
        sizes=[(64, 64), (48, 80), (64, 64)],
        batches=[1, 2],
        precisions=["fp32", "bf16"],
        repeats=3,
        memory=False,
        progress=lambda done, total: steps.append((done, total)),
    )
    cases = [(t.case.size, t.case.batch, t.case.precision) for t in result.timings]
    assert cases == [(s, b, p) for s in [(64, 64), (48, 80)] for b in (1, 2) for p in ("fp32", "bf16")]
    assert steps == [(done, 5) for done in range(1, 6)]
    for seen in result.timings:
        assert len(seen.passes) == 3
        assert all(seconds > 0 for one in seen.passes for seconds in one)
        assert tuple(seen.shares) == PARTS
        assert sum(seen.shares.values()) == pytest.approx(1)
        assert seen.throughput == pytest.approx(seen.case.batch / seen.latency)
        assert seen.peak is None
    machine = result.machine
    assert machine["threads"] == torch.get_num_threads() and machine["torch"] == torch.__version__
    assert result.model["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_a_pass_labels_as_predict_does(model: segvit.SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    label_map = benchmark.label_map
    monkeypatch.setattr(benchmark, "label_map", lambda output: made.append(label_map(output)))
    forward = benchmark._Run.forward

    def watched(self: Any, given: torch.Tensor) -> Any:
        images.append(given)
        return forward(self, given)

    monkeypatch.setattr(benchmark._Run, "forward", watched)
    segvit.bench(model, sizes=[(40, 64)], batches=[2], repeats=1, memory=False)
    assert images[-1].shape == (2, 3, 40, 64)
    assert torch.equal(made[-1], model.predict(images[-1]))
    assert not model.backbone._forward_hooks  # nothing is left on the model


def test_parts_take_the_time_that_they_take(model: segvit.SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 7.0] * 9)
    monkeypatch.setattr(benchmark, "_stamp", lambda device: next(clock))
    (seen,) = segvit.bench(model, repeats=2, memory=False).timings
    assert seen.passes == ((1, 2, 4), (1, 2, 4))
    assert seen.case.size == (64, 64)  # the training crop


def test_made_up_logits_show_the_classes_asked_for(model: segvit.SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    label_map = benchmark.label_map
    monkeypatch.setattr(benchmark, "label_map", lambda output: made.append(label_map(output)))
    segvit.bench(model, batches=[2], repeats=1, present=3, memory=False)
    class_logits, _ = made_up_logits(5, 3, (4, 4))
    seen = (class_logits[0, 0].argmax(dim=1) < 5).nonzero().flatten()
    assert len(seen) == 3
    assert made[-1].shape == (2, 64, 64)
    assert torch.equal(made[-1].unique(), seen)
    present, _ = made_up_logits(5, 3, (4, 4), presence=True)
    assert present.shape == (1, 1, 5, 1) and torch.equal((present[0, 0, :, 0] > 0).nonzero().flatten(), seen)


@pytest.mark.slow
@pytest.mark.skipif(not benchmark.CLEAR_REFS.exists(), reason="peak memory of the CPU is told by Linux alone")
def test_peak_memory_of_a_pass_alone(model: segvit.SegViT) -> None:
    held = torch.ones(2**26)  # 256 MiB of this process, which are none of the model's
    (seen,) = segvit.bench(model, sizes=[(1024, 1024)], repeats=1).timings
    assert len(held) and seen.peak is not None
    image = 3 * 1024 * 1024 * 4  # bytes, once it is floats
    assert image < seen.peak < 15 * image


def test_a_process_that_fails_says_why(model: segvit.SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback ...\nMemoryError: full\n")
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *words, **settings: failed)
    monkeypatch.setattr(benchmark, "CLEAR_REFS", Path(__file__))  # as on Linux
    with pytest.raises(UserError, match=r"64 x 64, batch 1, fp32: .*MemoryError: full.*--no-memory"):
        segvit.bench(model, repeats=1)


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"sizes": [(0, 64)]}, "size 0 x 64"),
        ({"batches": [0]}, "a batch of 0 images"),
        ({"repeats": 0}, "0 rounds"),
        ({"precisions": ["fp16"]}, "fp16: not offered on a cpu.* bf16 or fp32"),
        ({"present": 6}, "6 classes present: the model has 5"),
    ],
)
def test_what_cannot_be_timed(model: segvit.SegViT, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        segvit.bench(model, memory=False, **settings)


def test_no_memory_left(model: segvit.SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(output: Any) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(benchmark, "label_map", full)
    with pytest.raises(UserError, match=r"64 x 64, batch 1, fp32: .*leave this case out"):
        segvit.bench(model, memory=False)
    assert not model.backbone._forward_hooks


def test_the_command_prints_and_writes_the_same(run: Callable[..., str], model_file: Path, tmp_path: Path) -> None:
    flags = ["--size", "64", "48x80", "--batch", "1", "2", "--repeats", "2", "--no-memory", "--device", "cpu"]
    out = run(model_file, *flags, "--json", tmp_path / "x" / "bench.json", "--plot", tmp_path / "y" / "speed.png")
    content = json.loads((tmp_path / "x" / "bench.json").read_text())
    assert content["name"] == str(model_file)
    assert content["classes_present"] is None  # a file's weights are its own
    assert [(t["size"], t["batch"]) for t in content["timings"]] == [
        (size, batch) for size in ([64, 64], [48, 80]) for batch in (1, 2)
    ]
    assert content["machine"]["device"] == "cpu"
    for words in ("vit_tiny_patch16_224, plain, 5 classes", "48 x 80", "backbone", f"torch {torch.__version__}"):
        assert words in out
    assert f"{content['machine']['threads']} thread" in out
    for t in content["timings"]:
        assert sum(t["shares"].values()) == pytest.approx(1)
        low, high = t["latency_quartiles"]
        assert 0 < low <= t["latency_seconds"] <= high
    with Image.open(tmp_path / "y" / "speed.png") as picture:
        assert picture.width > picture.height > 300
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_command_on_a_backbone(run: Callable[..., str]) -> None:
    threads = torch.get_num_threads()
    flags = ["--image-size", "64", "--num-classes", "20", "--structure", "shrunk", "--repeats", "1", "--no-memory"]
    content = json.loads(run("vit_tiny_patch16_224", *flags, "--threads", "1", "--json", "-", "--device", "cpu"))
    torch.set_num_threads(threads)
    assert content["model"]["structure"] == "shrunk" and content["model"]["num_classes"] == 20
    assert content["classes_present"] == 12
    assert content["machine"]["threads"] == 1
    assert content["timings"][0]["size"] == [64, 64]


def test_the_command_looks_at_a_photo(
    run: Callable[..., str], model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (90, 60), (200, 10, 30)).save(tmp_path / "red.png")
    seen: list[torch.Tensor] = []
    images = benchmark._images
    monkeypatch.setattr(benchmark, "_images", lambda *given: seen.append(images(*given)) or seen[-1])
    flags = ["--image", tmp_path / "red.png", "--batch", "2", "--repeats", "1", "--no-memory", "--device", "cpu"]
    assert "64 x 64" in run(model_file, *flags)
    assert seen[0].shape == (2, 3, 64, 64)
    assert seen[0][1, :, 5, 5].tolist() == [200, 10, 30]


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--size", "12x"], ("--size 12x", "480x640")),
        (["--size", "64.5"], ("--size 64.5", "whole pixels")),
        (["--size", "0"], ("size 0 x 0", "1 pixel or more")),
        (["--batch", "0"], ("a batch of 0", "1 or more")),
        (["--repeats", "0"], ("0 rounds",)),
        (["--threads", "0"], ("--threads 0",)),
        (["--precision", "fp16", "--device", "cpu"], ("fp16", "bf16")),
        (["--precision", "int8"], ("int8", "fp32")),
        (["--plot", "speed.jpg"], ("speed.jpg", ".png")),
        (["--json", "--plot"], ("--json --plot", "a file")),
        (["--image", "absent.jpg"], ("absent.jpg",)),
        (["--num-classes", "7"], ("--num-classes", "leave the flag out")),
    ],
)
def test_the_command_says_what_is_wrong(
    run: Callable[..., str], model_file: Path, flags: list[str], parts: tuple[str, ...]
) -> None:
    said = run(model_file, *flags, "--no-memory")
    assert said.startswith(("exit 2", "exit 1"))
    for part in parts:
        assert part in said


def test_the_plot_draws_what_was_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    timings = [
        Timing(case=Case(size=(side, side), batch=batch, precision="fp32"), passes=((side / 64, 1, 1),), peak=None)
        for side in (128, 64)
        for batch in (1, 4)
    ]
    records = Bench(model={}, machine={}, present=None, timings=tuple(timings)).to_dict()["timings"]
    speeds(records, tmp_path / "speed.png", title="a model", place="a machine")
    latency, throughput, shares = figures[0].axes
    assert [label.get_text() for label in latency.get_xticklabels()] == ["64 × 64", "128 × 128"]
    assert [list(line.get_ydata()) for line in latency.lines] == [[3000, 4000]] * 2
    assert list(throughput.lines[1].get_ydata()) == pytest.approx([4 / 3, 1])
    assert sum(bar.get_width() for bar in shares.patches) == pytest.approx(400)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(model: segvit.SegViT) -> None:
    torch.manual_seed(0)
    there = segvit.create_model(config=TINY, num_classes=5).cuda().eval()
    sizes = [(64, 64), (512, 512)]
    result = segvit.bench(there, sizes=sizes, batches=[1, 4], precisions=["fp32", "fp16"], repeats=3, present=3)
    assert result.machine["device"] == "cuda" and result.machine["threads"] is None
    for seen in result.timings:
        assert all(seconds > 0 for one in seen.passes for seconds in one)
        assert seen.peak is not None and seen.peak > 0
    assert result.timings[-1].peak > result.timings[0].peak  # type: ignore[operator]
