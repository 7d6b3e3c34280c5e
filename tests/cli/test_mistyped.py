"""Lines that people type from habit: each answer names what to type, without a traceback and before torch is loaded."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from segvit.cli.help.examples import EXAMPLES
from segvit.cli.help.mistyped import OTHER_COMMANDS, check_words, options_of
from segvit.cli.main import app
from segvit.config import ModelConfig, TrainConfig
from segvit.config_files import read_yaml
from segvit.errors import UserError
from segvit.models.backbone_names import likely
from segvit.models.create import create_model
from segvit.recipes.backbones import costs
from segvit.utils.other_names import OTHERS, VALUES, find, value_here

MISTAKES = [
    # Ultralytics
    (
        "train data=x.yaml epochs=100 imgsz=640",
        ("type --data.spec x.yaml", "type --steps N. N is epochs * images / batch size", "type --model.image-size 640"),
    ),
    (
        "train model=yolo11n-seg.pt",
        ("type --init MODEL.safetensors", "Only models of segvit load", "`segvit backbones`", "--model.backbone"),
    ),
    (
        "segment train data=x.yaml model=yolo11n-seg.pt device=0 batch=16 amp=True lr0=0.01",
        ('Did you mean "train"', "--device cuda", "--batch-size 16", "--precision bf16", "--optim.lr 0.01"),
    ),
    ("task=segment mode=predict model=a.pt source=b.jpg", ('"predict"', "b.jpg without a flag", "argument INPUTS")),
    ("train workers=8 patience=20 project=runs name=one", ("--data.workers 8", "--early-stop 20", "--output one")),
    ("train cos_lr=True resume=True pretrained=False", ("--optim.power N", "--resume", "--model.no-pretrained")),
    ("val", ('Did you mean "evaluate"', "segvit evaluate", "Commands:")),
    ("val model=best.pt data=x.yaml", ('"evaluate"', "the argument MODEL", "--data.spec x.yaml")),
    (
        "predict model=m.safetensors source=a.jpg save=True conf=0.25",
        ("argument MODEL", "leave it out", "--confidence"),
    ),
    (
        "export m.safetensors --f onnx --imgsz 640 --half",
        ("--format onnx", "such as .onnx", "--size 640 640", "--precision fp16"),
    ),
    ("train --device 0", ("type --device cuda", "CUDA_VISIBLE_DEVICES")),
    # mmsegmentation
    ("train configs/x.py --work-dir w", ("no Python config", "--config finetune", "type --output w")),
    ("tools/train.py configs/x.yaml", ('Did you mean "train"', "type --config configs/x.yaml")),
    (
        "train --cfg-options optim_wrapper.optimizer.lr=1e-4 train_dataloader.batch_size=4",
        ("every setting is a flag", "type --optim.lr 1e-4", "type --batch-size 4"),
    ),
    ("train --resume-from w/latest.pth", ("type --resume --output FOLDER", "newest checkpoint")),
    ("train --load-from m.safetensors --amp", ("type --init m.safetensors", "type --precision bf16")),
    ("train --max-iters 1000 --crop-size 512", ("type --steps 1000", "type --model.image-size 512")),
    ("train --launcher pytorch --no-validate", ("torchrun --nproc-per-node N", "type --eval-every N")),
    (
        "test x.py x.pth --show-dir out",
        ('"evaluate"', "no Python config", "segvit convert x.pth", "type --pictures out"),
    ),
    # transformers
    (
        "train --num_train_epochs 3 --per_device_train_batch_size 8 --learning_rate 5e-5 --output_dir out --fp16 True",
        ("--steps N", "--batch-size 8. It counts", "--optim.lr 5e-5", "--output out", "--precision fp16"),
    ),
    ("train --model_name_or_path nvidia/mit-b0 --do_train", ("--init nvidia/mit-b0", "leave it out")),
    (
        "train --gradient_accumulation_steps 4 --warmup_ratio 0.1 --max_grad_norm 1.0",
        ("--accumulate 4", "--optim.warmup-steps N", "--optim.clip-norm 1.0"),
    ),
    (
        "train --save_steps 500 --eval_steps 500 --logging_steps 10",
        ("--save-every N", "--eval-every N", "--log-every 10"),
    ),
    ("train --report_to wandb --num_labels 3", ("--loggers wandb", "--data.classes NAME NAME ...")),
    # timm
    (
        "train -b 64 -j 8 --opt adamw --sched cosine",
        ("--batch-size 64", "--data.workers 8", "AdamW", "--optim.power N"),
    ),
    ("train --img-size 384 --drop-path-rate 0.1 --model-ema", ("384", "--model.drop-path 0.1", "--ema-decay 0.9999")),
    ("train --arch vit_small --num-classes 5", ("--model.backbone vit_small", "--data.classes")),
    # Lightning
    ("fit -c x.yaml", ('Did you mean "train"', "type --config x.yaml")),
    (
        "train --trainer.max_epochs 3 --trainer.precision 16-mixed --ckpt_path last.ckpt",
        ("--steps N", "--precision fp16", "--init MODEL.safetensors"),
    ),
    # names that are almost right
    ("train --optim.learning-rate 0.1", ("type --optim.lr 0.1",)),
    ("train --lr 0.1 --weight-decay 0.1", ("type --optim.lr 0.1", "type --optim.weight-decay 0.1")),
    ("train steps=300 optim.lr=1e-4", ("type --steps 300", "type --optim.lr 1e-4")),
    ("predict m.safetensors a.jpg --epochs 3 --output o", ("no such option", "segvit train has --steps N")),
    ("infer m.safetensors a.jpg", ('Did you mean "predict"',)),
    ("check_data --data.images photos", ('Did you mean "check-data"',)),
    # words and files
    ("", ("check-data", "train", "predict")),
    ("predict", ("requires an argument", "For example", "segvit predict runs")),
    ("train --config lost.yaml", ("no config file 'lost.yaml'", "shapes/demo")),
    ("evaluate lost.pth", (".safetensors and .onnx", "segvit convert lost.pth model.safetensors")),
    ("evaluate torch.pth", (".safetensors and .onnx", "segvit convert torch.pth model.safetensors")),
    ("predict my model.safetensors a.jpg", ('put the name in quotes: "my model.safetensors"',)),
    ("train --data.images my photos --data.labels masks", ('put the name in quotes: "my photos"',)),
    ("train --resume true --compile False", ("--resume true: type --resume", "type --no-compile")),
    ("train --resume w/last.pt", ("type --resume --output FOLDER",)),
    ("model.safetensors a.jpg", ("segvit predict model.safetensors a.jpg --output seen",)),
    ("--config x.yaml", ("the command comes first", "segvit train --config x.yaml")),
    ("help train", ("type segvit train --help",)),
]
"""A line, and parts of its answer."""

PROGRAM = """
import contextlib, io, json, shlex, sys, traceback
from segvit.cli.main import main
answers = []
for line in json.load(sys.stdin):
    sys.argv = ["segvit", *shlex.split(line)]
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            main()
        except SystemExit as leave:
            code = leave.code
        except BaseException:
            traceback.print_exc()
    answers.append((code, text.getvalue(), sorted({"torch", "timm"} & sys.modules.keys())))
print(json.dumps(answers))
"""


class Answer(NamedTuple):
    """Result of a command: its exit code, its text, and those of torch and timm that are loaded."""

    code: int
    text: str
    loaded: list[str]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The answer to every line, all by one process, in a folder with names that have spaces."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "my model.safetensors").touch()
    (folder / "my photos").mkdir()
    (folder / "torch.pth").write_bytes(b"PK\x03\x04")
    lines = [line for line, _ in MISTAKES]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return {line: Answer(*answer) for line, answer in zip(lines, json.loads(result.stdout), strict=True)}


@pytest.mark.parametrize("line, parts", MISTAKES, ids=[line or "nothing" for line, _ in MISTAKES])
def test_the_answer_names_the_remedy(line: str, parts: tuple[str, ...], answers: dict[str, Answer]) -> None:
    answer = answers[line]
    assert answer.code == (2 if line else 0) and "Traceback" not in answer.text
    assert not answer.loaded, "the answer needs no model, so it must not wait for torch"
    text = " ".join(answer.text.replace("│", " ").split())
    for part in parts:
        assert part in text, text


def test_there_are_forty_lines_or_more() -> None:
    assert len({line for line, _ in MISTAKES}) == len(MISTAKES) >= 40


@pytest.mark.parametrize(
    "line",
    [
        "train --data.images p --data.labels m --data.classes sky=0 traffic-light=255",
        "train --loss.class-weights road=2 --batch-size=4 --optim.betas 0.9 0.99 --resume --no-compile",
        "train --config x.yaml --init user/repo --eval_every 5 --optim.freeze 8",
        "predict m.safetensors --overwrite a=b.jpg --output o rtsp://host/stream?x=1 webcam:0 -- --odd.jpg",
        "bench vit_tiny_patch16_224 --size 512 480x640 --batch 1 2 --json -",
        "convert x.pth m.safetensors --mean 0.5 0.5 0.5",
        "info vit_tiny_patch16_224 --size 64 -3",
        "train --help --lr",
        "data prepare ade20k --root r",
        "backbones dinov2 --pretrained",
        f"predict {'m' * 300}.safetensors {'a' * 5000}",
    ],
)
def test_a_good_line_is_left_alone(line: str) -> None:
    check_words(app, shlex.split(line))


def test_an_existing_file_is_no_assignment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="epochs=3: segvit predict has no such option"):
        check_words(app, ["predict", "m.safetensors", "epochs=3"])
    Path("epochs=3").mkdir()
    check_words(app, ["predict", "m.safetensors", "epochs=3"])


@pytest.mark.parametrize("verb", ["train", "check-data", "lr-find"])
def test_a_pattern_without_quotes_is_answered_with_the_folders(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = [f"my photos/{number}.jpg" for number in range(3)]
    masks = [f"masks/{number}.png" for number in range(3)]
    for path in map(Path, photos + masks):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    Path("more").mkdir()
    for words, folders in (
        ([*photos, "masks"], "'my photos' masks"),
        ([*photos, *masks], "'my photos' masks"),
        (photos, "'my photos' MASKS"),
        (["--batch-size" if verb != "check-data" else "--split", "4", *photos, "masks"], "'my photos' masks"),
        ([*photos, *masks, "more"], "PHOTOS MASKS"),
    ):
        with pytest.raises(UserError) as caught:
            check_words(app, [verb, *words])
        assert "my photos/*.jpg: the shell put 3 files in its place" in str(caught.value), words
        assert f"Give the folders instead: segvit {verb} {folders}\n" in str(caught.value), words
    for words in (["my photos", "masks"], ["my photos/*.jpg", "masks"], photos[:2], ["a", "b", "c"]):
        check_words(app, [verb, *words])


def test_every_option_of_the_table_exists() -> None:
    """Each line of the table leads to an option of some command, and no name is in two lines."""
    verbs = [app[name] for name in app if not name.startswith("-") and name != "data"]
    known = {option.name for verb in verbs for option in options_of(verb.assemble_argument_collection())}
    for other in OTHERS:
        assert other.options or other.note
        for option in other.options:
            assert option.partition(" ")[0] in known | {"PHOTOS", "MODELS"}, option
        for flag in re.findall(r"--([a-z][\w.-]*\w)", other.note):
            assert flag in known | {"nproc-per-node"}, flag
    names = [name for other in OTHERS for name in other.names.split()]
    assert len(names) == len(set(names))
    assert {*app, "data prepare", "segvit"} - {"data"} >= OTHER_COMMANDS.keys() | EXAMPLES.keys()
    words = [word for words in OTHER_COMMANDS.values() for word in words.split()]
    assert len(words) == len(set(words)) and not set(words) & set(app)


@pytest.mark.parametrize("setting, pattern, here, note", VALUES)
def test_every_value_of_the_table_parses(setting: str, pattern: str, here: str, note: str) -> None:
    names = {"device": "device", "precision": "precision", "mode": "eval.mode", "freeze": "optim.freeze"}
    section, _, last = names[setting].rpartition(".")
    content: dict[str, Any] = {section: {last: here}} if section else {last: here}
    TrainConfig.from_dict(content, source="a test")
    first = re.sub(r"\\d.*", "0", pattern.split("|")[0]).replace("?", "")
    assert value_here(names[setting], first) == (here, note)


def test_a_setting_is_found_by_its_own_words() -> None:
    known = ["optim.lr", "optim.weight-decay", "batch-size", "eval.batch-size", "steps", "augment.flip", "eval.flip"]
    for name, options in {
        "--lr": ["optim.lr"],
        "weight_decay": ["optim.weight-decay"],
        "train.batch_size": ["batch-size"],
        "flip": ["augment.flip", "eval.flip"],
        "learning_rte": ["optim.lr"],
        "optim.lrr": ["optim.lr"],
    }.items():
        found = find(name, known)
        assert found and found.options == options, name
    assert find("zzz", known) is None


@pytest.mark.parametrize(
    "text, parts",
    [
        ("optim:\n  learning_rate: 1\n", ("`optim.learning_rate`", "did you mean 'optim.lr'")),
        ("epochs: 3\n", ("`epochs`", "did you mean 'steps'", "epochs * images / batch size")),
        ("imgsz: 640\n", ("`imgsz`", "did you mean 'model.image_size'")),
        ("model:\n  num_classes: 3\n", ("`model.num_classes`", "did you mean 'data.classes'")),
        ("optimizer: adam\n", ("`optimizer`", "The optimizer is AdamW")),
    ],
)
def test_a_file_of_settings_is_answered_from_the_same_table(text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / "x.yaml", TrainConfig)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "typed, first",
    [
        ("vit_small", "vit_small_patch14_dinov2"),
        ("vitsmall", "vit_small_patch14_dinov2"),
        ("dinov2_vitb14", "vit_base_patch14_dinov2"),
        ("facebook/dinov2-small", "vit_small_patch14_dinov2"),
        ("google/vit-base-patch16-224", "vit_base_patch16_224"),
        ("ViT-B/16", "vit_base_patch16_224"),
        ("dinov3_vits16", "vit_small_patch16_dinov3"),
        ("vit_tiny_patch16_22", "vit_tiny_patch16_224"),
    ],
)
def test_backbones_that_are_offered_can_be_built(typed: str, first: str) -> None:
    plain = {cost.name for cost in costs()}
    offered = likely(typed)
    assert offered[0] == first and set(offered) <= plain


def test_nothing_is_offered_for_a_name_without_meaning() -> None:
    assert not likely("qqqq")
    with pytest.raises(UserError, match="`segvit backbones` lists"):
        create_model(config=ModelConfig(backbone="segformer_b0"), num_classes=2)
