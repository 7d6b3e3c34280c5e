"""Precision and compiling: what is chosen, told and kept safe, and how many graphs it takes."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

import segvit
from segvit.cli import main as cli
from segvit.config import DataConfig, EvalConfig, ModelConfig, Structure, TrainConfig, Upsampling
from segvit.data.dataset import Samples, open_dataset
from segvit.data.shapes.scenes import write_shapes
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.inference import precision as precision_module
from segvit.inference.compiled import compile_model, is_compiled
from segvit.inference.onnx_model import OnnxModel
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import image_labels
from segvit.models.create import create_model
from segvit.models.output import SegOutput
from segvit.models.segvit import SegViT
from segvit.prediction.predict_files import predict_files
from segvit.training.settings import check_same_run
from segvit.training.train import train
from tests.helpers.tiny import random_images, relative_difference, tell_apart, tiny_config

SPEC = load_spec("shapes")
NETWORK = ModelConfig(
    backbone="vit_tiny_patch16_224",
    image_size=32,
    patch_size=8,
    embed_dim=64,
    depth=3,
    head_num_layers=1,
    init_std=0.05,
)
SIZES = [(64, 64), (63, 63), (65, 57), (130, 33), (33, 150), (48, 80), (96, 64), (64, 96), (50, 77), (200, 120)]
"""Ten, the training crop and a pixel beside it among them."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_shapes(folder, train=2, val=4, size=64)
    return folder


@pytest.fixture
def model() -> SegViT:
    """Random weights that see every class somewhere, in windows of 32 pixels."""
    torch.manual_seed(0)
    model = create_model(config=NETWORK, num_classes=8, spec=SPEC, protocol=EvalConfig(stride=16, batch_size=1)).eval()
    tell_apart(model)
    return model


@pytest.fixture
def dataset(root: Path) -> Samples:
    return open_dataset(DataConfig(spec="shapes", root=root), "val")


@pytest.fixture
def clean_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# What is chosen -------------------------------------------------------------------------------------------------------


def cpu(monkeypatch: pytest.MonkeyPatch, *, amx: bool = False, avx: bool = False, machine: str = "x86_64") -> None:
    """A processor with these; oneDNN says of it that bf16 works, natively or emulated."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(precision_module.platform, "machine", lambda: machine)


@pytest.mark.parametrize(
    "having, name, told",
    [
        ({}, "fp32", "emulate"),
        ({"avx": True}, "bf16", "AVX512-BF16"),
        ({"amx": True, "avx": True}, "bf16", "AMX"),
    ],
    ids=str,
)
def test_auto_on_a_cpu(
    model: SegViT, monkeypatch: pytest.MonkeyPatch, having: dict[str, bool], name: str, told: str
) -> None:
    cpu(monkeypatch, **having)
    chosen = resolve_precision(model, "auto")
    assert chosen.name == name and told in str(chosen) and "auto" in str(chosen)
    assert (chosen.autocast is None) == (name == "fp32")
    assert str(resolve_precision(model)) == "fp32"
    emulated = "emulated" in str(resolve_precision(model, "bf16"))
    assert emulated == (name == "fp32")


def test_auto_asks_onednn_on_arm_alone(model: SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    cpu(monkeypatch, machine="aarch64")
    assert resolve_precision(model, "auto").name == ("bf16" if answer else "fp32")
    cpu(monkeypatch, machine="x86_64")
    assert resolve_precision(model, "auto").name == "fp32"


@pytest.mark.parametrize(
    "bf16, capability, name", [(True, (8, 0), "bf16"), (False, (7, 5), "fp16"), (False, (6, 1), "fp32")]
)
def test_auto_on_cuda(monkeypatch: pytest.MonkeyPatch, bf16: bool, capability: tuple[int, int], name: str) -> None:
    there: Any = SimpleNamespace(mean=SimpleNamespace(device=torch.device("cuda", 0)))
    monkeypatch.setattr(precision_module, "_cuda_has_bf16", lambda device: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = resolve_precision(there, "auto")
    assert chosen.name == name and "a GPU" in str(chosen)
    if not bf16:
        with pytest.raises(UserError, match=r"bf16: a GPU lacks it; use fp16 or fp32"):
            resolve_precision(there, "bf16")


def test_fp16_is_refused_on_a_cpu(model: SegViT, dataset: Samples, tmp_path: Path) -> None:
    image = dataset.read(0).image.permute(1, 2, 0).numpy()
    for run in (
        lambda: segvit.predict(model, image, precision="fp16"),
        lambda: segvit.evaluate(model, dataset, precision="fp16"),
        lambda: predict_files(model, [], tmp_path, precision="fp16"),
    ):
        with pytest.raises(UserError, match=r"fp16: not offered on a cpu.* bf16 or fp32"):
            run()


def test_an_exported_model_computes_as_it_was_exported() -> None:
    exported = OnnxModel.__new__(OnnxModel)
    torch.nn.Module.__init__(exported)
    exported.path, exported.export = Path("small.onnx"), {"precision": "int8"}
    for wanted in (None, "auto"):
        chosen = resolve_precision(exported, wanted)
        assert (chosen.name, chosen.autocast) == ("int8", None)
    with pytest.raises(UserError, match=r"fp32: small.onnx was exported in int8; leave --precision out"):
        resolve_precision(exported, "fp32")
    exported.export = {"precision": "fp32"}
    assert resolve_precision(exported, "fp32").name == "fp32"
    with pytest.raises(UserError, match=r"small.onnx: ONNX Runtime has compiled this model already"):
        compile_model(exported)


# What it does ---------------------------------------------------------------------------------------------------------


def test_bf16_labels_agree_with_float32(model: SegViT, dataset: Samples) -> None:
    """But for pixels near a border; and fp32 is exactly what it was, whatever is set around it."""
    images = [dataset.read(index).image.as_subclass(Tensor) for index in range(len(dataset))]
    pictures = [image.permute(1, 2, 0).numpy() for image in images]
    plain = [image_labels(model, image) for image in images]
    assert len(torch.cat(plain).unique()) > 3
    with torch.autocast("cpu", torch.bfloat16):
        for picture, labels in zip(pictures, plain, strict=True):
            assert (segvit.predict(model, picture).labels == labels.numpy()).all()
    half = [torch.from_numpy(segvit.predict(model, picture, precision="bf16").labels) for picture in pictures]
    agreement = float((torch.stack(half) == torch.stack(plain)).double().mean())
    assert 0.95 < agreement < 1


def test_evaluation_tells_its_precision(model: SegViT, dataset: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu(monkeypatch, avx=True)
    plain, half, auto = (segvit.evaluate(model, dataset, precision=wanted) for wanted in (None, "bf16", "auto"))
    assert plain.protocol["precision"] == "fp32" and "precision fp32;" in plain.protocol_line().replace(", one", ";")
    assert "precision bf16 (auto: this cpu multiplies it by AVX512-BF16)" in auto.protocol_line()
    told = json.loads(json.dumps(auto.to_dict()))["protocol"]
    assert told["precision"] == "bf16" and "AVX512-BF16" in told["precision_note"]
    assert torch.equal(half.matrix.counts, auto.matrix.counts)
    assert not torch.equal(half.matrix.counts, plain.matrix.counts)
    assert half.miou == pytest.approx(plain.miou, abs=0.02)
    alone = segvit.evaluate(model, dataset, precision="bf16", workers=0)  # counts inside the block
    assert torch.equal(alone.matrix.counts, half.matrix.counts) and alone.metrics == half.metrics


class CountCasts(TorchDispatchMode):
    """Counts casts of tensors of some shapes to bf16."""

    def __init__(self, shapes: set[torch.Size]) -> None:
        super().__init__()
        self.shapes, self.count = shapes, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.count += args[0].shape in self.shapes
        return func(*args, **kwargs)


@pytest.mark.parametrize("structure", ["plain", "shrunk"])
def test_weights_are_cast_once_for_all_windows_and_images(structure: Structure, root: Path, tmp_path: Path) -> None:
    network = replace(NETWORK, structure=structure)
    model = create_model(config=network, num_classes=8, spec=SPEC, protocol=EvalConfig(stride=16, batch_size=1)).eval()
    weights = [p for name, p in model.named_parameters() if (p.ndim == 2 and "mlp" in name) or ".fc" in name]
    casts = CountCasts({weight.shape for weight in weights if weight.ndim == 2})
    folder = root / SPEC.splits["val"].images
    with casts:
        done = predict_files(model, [folder], tmp_path, precision="bf16")
    assert len(done.written) == 4 and not done.failures  # of nine windows each
    assert casts.count == sum(weight.ndim == 2 for weight in weights)
    again = CountCasts(casts.shapes)
    with again:
        segvit.evaluate(model, open_dataset(DataConfig(spec="shapes", root=root), "val"), precision="bf16", workers=0)
    assert again.count == casts.count


def test_masks_and_class_logits_are_float32(model: SegViT) -> None:
    images = random_images(2, (40, 56))
    with torch.no_grad(), computing_in(resolve_precision(model, "bf16"), torch.device("cpu")):
        output = model(images)
        inner = model.backbone(model.pad(model.normalise(images)))[0] @ torch.ones(7)  # (2, 64, 5, 7)
    assert inner.dtype == torch.bfloat16  # so that it is in force
    assert output.class_logits.dtype == output.mask_logits.dtype == torch.float32


def test_losses_are_those_of_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(shape, generator=generator) for shape in ((2, 1, 3, 4), (2, 1, 3, 4, 4))]
    labels = torch.randint(0, 3, (1, 32, 32), generator=generator)
    runs = []
    for half in (False, True):
        leaves = [x.clone().requires_grad_() for x in logits]
        output = SegOutput(leaves[0], leaves[1], (32, 32), (32, 32))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            total = segvit.criterion(output, labels).total
        total.backward()
        runs.append([total, *(x.grad for x in leaves)])
    for plain, mixed in zip(*runs, strict=True):
        assert mixed is not None and mixed.dtype == torch.float32
        assert torch.equal(plain, mixed)


# Compiled -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clean_compiler")
@pytest.mark.parametrize(
    "variant, structure, upsampling, training",
    [
        *(pytest.param("vit", "plain", "tap", training, marks=pytest.mark.slow) for training in (False, True)),
        *(
            pytest.param("vit", "shrunk", upsampling, training, marks=pytest.mark.slow)
            for upsampling in ("tap", "paper")
            for training in (False, True)
        ),
        *(
            pytest.param(variant, structure, "tap", training, marks=pytest.mark.slow)
            for variant in ("beitv2", "eva02", "dinov3")
            for structure in ("plain", "shrunk")
            for training in (False, True)
        ),
    ],
)
def test_two_graphs_serve_every_size(
    variant: str, structure: Structure, upsampling: Upsampling, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_config(variant, structure, upsampling), depth=3, head_num_layers=1)
    torch.manual_seed(0)
    model = create_model(config=replace(config, head_dropout=0.0), num_classes=5).train(training)
    twin, counter = copy.deepcopy(model), CompileCounter()
    monkeypatch.setattr(model, "compile", lambda **how: SegViT.compile(model, backend=counter, fullgraph=True, **how))
    compile_model(model)
    graphs = {1: 0, 2: 0}
    with torch.set_grad_enabled(training):
        for batch in graphs:
            before = counter.frame_count
            for index, size in enumerate(SIZES):
                images = random_images(batch if batch == 1 else 2 + index % 2, size)
                ours, eager = (net(images, deep=training) for net in (model, twin))
                assert relative_difference(ours.mask_logits.detach(), eager.mask_logits.detach()) < 1e-5
                assert ours[2:] == eager[2:]
            graphs[batch] = counter.frame_count - before
    assert graphs == {1: 1, 2: 1}


@pytest.mark.usefixtures("clean_compiler")
@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_two_graphs_serve_a_folder_of_any_sizes(model: SegViT, monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    """As `--compile` runs: windows, also padded ones, of ten images in batches of 8 and what is left over."""
    monkeypatch.setattr(model, "protocol", EvalConfig(stride=16))
    twin, counter, wanted = copy.deepcopy(model), CompileCounter(), "bf16" if half else "fp32"
    monkeypatch.setattr(model, "compile", lambda **how: SegViT.compile(model, backend=counter, fullgraph=True, **how))
    compile_model(model)
    for height, width in [(20, 70), *SIZES[1:9], (90, 30)]:
        picture = random_images(1, (height, width))[0].permute(1, 2, 0).numpy()
        ours, eager = (segvit.predict(net, picture, precision=wanted).labels for net in (model, twin))
        assert (ours == eager).mean() > (0.95 if half else 0.999)
    assert 1 <= counter.frame_count <= 2


@pytest.mark.slow
@pytest.mark.usefixtures("clean_compiler")
@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
def test_training_compiled(precision: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter, inner = CompileCounter(), SegViT.compile
    monkeypatch.setattr(SegViT, "compile", lambda self, **how: inner(self, backend=counter, fullgraph=True, **how))
    runs = {}
    for compiled in (False, True):
        config = TrainConfig(
            model=replace(NETWORK, head_dropout=0.0),
            data=DataConfig(spec="shapes", root=root, workers=0),
            steps=3,
            batch_size=2,
            eval_every=3,
            precision=precision,
            compile=compiled,
            device="cpu",
            output=tmp_path / str(compiled),
        )
        runs[compiled] = train(config)
    assert counter.frame_count == 3  # one to train, and to validate one for windows in batches, one for a left-over
    losses = {}
    for compiled, run in runs.items():
        lines = (run.path.parent / "metrics.jsonl").read_text().splitlines()
        losses[compiled] = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
        assert run.result.protocol["precision"] == precision
        assert run.result.protocol.get("compiled") == (True if compiled else None)
    assert losses[True] == pytest.approx(losses[False], rel=1e-2 if precision == "bf16" else 1e-5)
    assert load_file(runs[True].path).keys() == load_file(runs[False].path).keys()
    assert not any("_orig_mod" in name for name in load_file(runs[True].path))
    again = train(replace(config, steps=3), resume=True)  # a checkpoint of a compiled run holds plain names
    assert again.miou == runs[True].miou
    segvit.load_model(runs[True].path)


def test_a_run_from_before_compile_can_be_resumed() -> None:
    config = TrainConfig()
    saved = config.to_dict()
    del saved["compile"]
    check_same_run(config, saved)
    with pytest.raises(UserError, match="compile: False in the run, True now"):
        check_same_run(replace(config, compile=True), saved)


@pytest.mark.parametrize(
    "compiled",
    [
        pytest.param(lambda model: torch.compile(model), marks=pytest.mark.slow),
        lambda model: compile_model(model) or model,
    ],
)
def test_a_compiled_model_is_profiled_benched_and_saved(
    model: SegViT, compiled: Callable[[SegViT], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = segvit.profile(model, (40, 56))
    names = set(model.state_dict())
    monkeypatch.setattr(shutil, "which", lambda name: "there")
    fast = compiled(model)
    assert is_compiled(fast)
    assert segvit.profile(fast, (40, 56)) == seen
    fast.save(tmp_path / "model.safetensors")
    assert set(load_file(tmp_path / "model.safetensors")) == names


@pytest.mark.slow
@pytest.mark.usefixtures("clean_compiler")
def test_what_torch_compile_gives_labels_and_scores_as_the_model_itself(model: SegViT, dataset: Samples) -> None:
    picture = dataset.read(0).image.permute(1, 2, 0).numpy()
    fast: Any = torch.compile(copy.deepcopy(model), backend="eager", dynamic=True)
    assert (segvit.predict(fast, picture).labels == segvit.predict(model, picture).labels).mean() > 0.999
    result = segvit.evaluate(fast, dataset)
    assert result.miou == pytest.approx(segvit.evaluate(model, dataset).miou, abs=1e-3)
    assert "compiled yes" in result.protocol_line()


@pytest.mark.slow
@pytest.mark.usefixtures("clean_compiler")
def test_bench_of_a_compiled_model(model: SegViT) -> None:
    model.compile(backend="eager", dynamic=True)
    result = segvit.bench(model, sizes=[(32, 32)], precisions=["bf16"], repeats=2, memory=False)
    assert tuple(result.timings[0].shares) == ("backbone and head", "label map")
    assert result.title.endswith(", compiled")


def test_no_compiler_is_told(model: SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"'no-such-compiler' is not installed: install it.*CXX.*leave --compile out"):
        compile_model(model)
    assert not is_compiled(model)


# The command line -----------------------------------------------------------------------------------------------------


def test_the_command_line_says_what_it_computes_in(
    model: SegViT, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu(monkeypatch, avx=True)
    compiled: list[Any] = []
    monkeypatch.setattr("segvit.inference.compiled.compile_model", compiled.append)
    file, photos = tmp_path / "model.safetensors", root / SPEC.splits["val"].images
    model.save(file)

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["segvit", *map(str, arguments), "--device", "cpu"])
        cli.main()
        return " ".join(capsys.readouterr().out.split())

    assert "computing in fp32" in run("predict", file, photos, "--output", tmp_path / "a")
    said = run("predict", file, photos, "--output", tmp_path / "b", "--precision", "auto", "--compile")
    assert "computing in bf16 (auto: this cpu multiplies it by AVX512-BF16)" in said
    scores = tmp_path / "scores.json"
    data = ("--data.spec", "shapes", "--data.root", root, "--json", scores)
    run("evaluate", file, *data, "--precision", "bf16", "--compile", "--pictures", tmp_path / "seen")
    assert json.loads(scores.read_text())["protocol"]["precision"] == "bf16"
    assert len(compiled) == 2


# Inductor -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("clean_compiler")
def test_inductor_gives_the_same(model: SegViT) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("needs a C++ compiler")
    twin = copy.deepcopy(model)
    compile_model(model)
    with torch.no_grad():
        for size in SIZES[:4]:
            ours, eager = (net(random_images(1, size), deep=False) for net in (model, twin))
            assert relative_difference(ours.mask_logits, eager.mask_logits) < 1e-4
            assert relative_difference(ours.class_logits, eager.class_logits) < 1e-4
