"""Names that settings have in other libraries, and the setting of segvit that each of them means.

    find("imgsz", known).options            # ["model.image-size"]
    find("trainer.max_epochs", known).note  # "N is epochs * images / batch size."

The table knows Ultralytics, mmsegmentation, transformers, timm and Lightning. It serves flags, words such as
`epochs=100`, and keys of a YAML file.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from segvit.utils.text import nearest

SIMILAR = 0.8
"""Least similarity in 0..1 of a misspelled name of another library; a misspelled setting needs 0.6."""


@dataclass(frozen=True)
class Other:
    """Names that mean the same in other libraries."""

    names: str
    """The names, separated by spaces, in small letters and with hyphens."""
    options: tuple[str, ...]
    """Settings that they may mean; the first one that a command has is right. Positional arguments are in capitals, and
    `precision fp16` stands for a setting with its value."""
    note: str = ""
    """Sentence to add, or the whole answer if there are no options."""
    bare: bool = False
    """True if the names take no value, or only true and false."""


@dataclass(frozen=True)
class Found:
    """Settings that a name stands for."""

    options: list[str]
    """Settings, likeliest first, spelled as the command spells them, perhaps with a value."""
    note: str = ""
    """Sentence to add, or the whole answer if there are no options."""
    bare: bool = False
    """True if the name takes no value, or only true and false."""
    guessed: bool = False
    """True if the name was only similar."""


_FOREIGN_MODEL = "Only models of segvit load. `segvit backbones` lists the pretrained backbones for --model.backbone."
_DEVICES = "For several GPUs, type torchrun --nproc-per-node N -m segvit train ..."

OTHERS = (
    Other("lr lr0 learning-rate base-lr blr max-lr init-lr", ("optim.lr",)),
    Other("wd decay", ("optim.weight-decay",)),
    Other("momentum beta1 adam-beta1 beta2 adam-beta2 opt-betas", ("optim.betas 0.9 0.999",)),
    Other("warmup warmup-iters warmup-epochs warmup-ratio", ("optim.warmup-steps N",), "N counts steps."),
    Other("clip-grad grad-clip max-grad-norm gradient-clip-val clip-grad-norm", ("optim.clip-norm",)),
    Other("layerwise-lr-decay layer-wise-lr-decay llrd", ("optim.layer-decay",)),
    Other("optimizer opt optim-type", (), "The optimizer is AdamW; --optim.lr and --optim.weight-decay set it."),
    Other(
        "sched scheduler lr-scheduler lr-scheduler-type lr-schedule lrf cos-lr lr-policy",
        ("optim.power N",),
        "The rate falls polynomially; a power of 1 is linear.",
    ),
    Other("lora peft", ("optim.lora-rank N",), "A rank such as 8."),
    Other(
        "epochs epoch num-epochs max-epochs num-train-epochs n-epochs total-epochs",
        ("steps N",),
        "N is epochs * images / batch size.",
    ),
    Other("iters iterations iter max-iters max-iter num-iters max-steps num-steps train-iters total-steps", ("steps",)),
    Other(
        "imgsz img-size img-sz image-size crop-size crop input-size resolution",
        ("model.image-size", "image-size", "window", "size"),
        "It is the side in pixels.",
    ),
    Other("bs batch batchsize b train-batch-size", ("batch-size", "batch", "eval.batch-size")),
    Other(
        "per-device-train-batch-size per-gpu-batch-size samples-per-gpu per-device-eval-batch-size",
        ("batch-size",),
        "It counts the images of all devices together.",
    ),
    Other(
        "gradient-accumulation-steps accumulate-grad-batches grad-accum-steps accumulation accum-iter",
        ("accumulate",),
        "It splits the batch, which stays as large.",
    ),
    Other(
        "model weights ckpt checkpoint ckpt-path model-path model-file m load-from pretrained-model pretrained-weights "
        "model-name-or-path initial-checkpoint finetune-from init-from",
        ("MODEL", "MODELS", "init"),
        _FOREIGN_MODEL,
    ),
    Other(
        "resume-from resume-from-checkpoint auto-resume resume-path",
        ("resume --output FOLDER",),
        "It resumes from the newest checkpoint of the run in that folder.",
    ),
    Other("arch encoder model-type model-name backbone-name", ("model.backbone",)),
    Other("decoder decode-head head-type", ("model.head",)),
    Other("drop-path-rate stochastic-depth", ("model.drop-path",)),
    Other(
        "num-classes nc n-classes num-labels",
        ("num-classes", "data.classes NAME NAME ..."),
        "The number of classes is that of their names.",
    ),
    Other("class-names names label-names id2label", ("data.classes NAME NAME ...",)),
    Other("ignore-index ignore-label ignore-value", ("data.ignore",)),
    Other("reduce-zero-label do-reduce-labels", ("data.ignore 0",), "Class 1 is --data.classes NAME=1.", bare=True),
    Other(
        "data dataset data-yaml dataset-name dataset-type",
        ("data.spec",),
        "Name a shipped dataset or a spec (docs/data.md), and its folder with --data.root.",
    ),
    Other("data-dir data-root data-path dataset-dir dataset-root", ("data.root",)),
    Other("source src input inputs i images image img photos photo", ("INPUTS", "PHOTOS", "data.images")),
    Other("img-dir image-dir images-dir train-images train-dir train-data", ("data.images",)),
    Other("masks mask-dir masks-dir annotations ann-dir labels-dir label-dir gt gt-dir", ("data.labels",)),
    Other("val val-dir val-data validation-dir eval-data", ("data.val-images",), "Its masks are --data.val-labels."),
    Other("val-split validation-split test-size val-ratio", ("data.val-fraction",)),
    Other("num-workers dataloader-num-workers nw j cpus", ("workers", "data.workers")),
    Other(
        "val-interval val-every eval-interval eval-steps eval-freq val-check-interval check-val-every-n-epoch",
        ("eval-every N",),
        "N counts steps.",
    ),
    Other("no-validate noval no-val skip-val", ("eval-every N",), "The last step always validates.", bare=True),
    Other("save-interval save-steps save-period save-freq checkpoint-interval", ("save-every N",), "N counts steps."),
    Other("save-total-limit checkpoint-hist max-keep-ckpts save-top-k", ("keep-checkpoints",)),
    Other("log-interval logging-steps log-freq print-freq log-every-n-steps", ("log-every",)),
    Other("report-to logger tracker", ("loggers",)),
    Other("wandb use-wandb", ("loggers wandb",), bare=True),
    Other(
        "output-dir work-dir workdir save-dir out-dir outdir out o project name run-name exp-name experiment-name "
        "logdir log-dir default-root-dir show-dir run-dir",
        ("output", "OUTPUT", "pictures"),
    ),
    Other("cfg config-file config-path cfg-file c yaml hyp", ("config",)),
    Other("seed-everything random-state manual-seed", ("seed",)),
    Other("deterministic cudnn-benchmark", ("seed 0",), "Runs of one seed draw the same numbers.", bare=True),
    Other("patience early-stopping early-stopping-patience", ("early-stop",)),
    Other("ema model-ema use-ema model-ema-decay", ("ema-decay 0.9999",)),
    Other("gpu gpus gpu-id gpu-ids cuda use-cuda", ("device cuda",), _DEVICES),
    Other("devices num-gpus num-processes nnodes launcher local-rank world-size strategy", ("device cuda",), _DEVICES),
    Other("accelerator", ("device",)),
    Other("cpu no-cuda use-cpu", ("device cpu",), bare=True),
    Other("amp mixed-precision bf16 use-amp", ("precision bf16",), bare=True),
    Other("fp16 half", ("precision fp16",), bare=True),
    Other("int8", ("precision int8",), bare=True),
    Other("torch-compile torchcompile jit", ("compile",), bare=True),
    Other("gradient-checkpointing with-cp use-checkpoint activation-checkpointing", ("grad-checkpointing",), bare=True),
    Other("tta test-time-augmentation aug-test ms multiscale", ("multi-scale",), bare=True),
    Other("sliding-window slide", ("mode slide", "eval.mode slide"), bare=True),
    Other("alpha transparency", ("opacity",)),
    Other("fliplr hflip horizontal-flip", ("augment.flip",)),
    Other("flipud vflip vertical-flip", ("augment.vertical-flip 0.5",)),
    Other("degrees random-rotation", ("augment.rotation 10",)),
    Other("erasing random-erasing reprob", ("augment.erase 0.25",)),
    Other("ratio-range scale-range random-scale", ("augment.scale 0.5 2",)),
    Other("cat-max-ratio", ("augment.max-class-share",)),
    Other("color-jitter hsv-v", ("augment.brightness",), "See also --augment.contrast, .saturation and .hue."),
    Other("class-weight weight-class ce-weight", ("loss.class-weights",)),
    Other("cfg-options opts override overrides options", (), "Every setting is a flag: --optim.lr 1e-4."),
    Other("f opset include", ("format",), "The ending of the file that you name decides, such as .onnx or .pt2."),
    Other("dynamic simplify", (), "Leave it out: an exported model takes any size, unless --size fixes it.", bare=True),
    Other(
        "conf conf-thres confidence-threshold threshold score-thr iou iou-thres",
        ("confidence",),
        "It writes a map of the confidence. There is no threshold: each pixel gets its likeliest class.",
    ),
    Other(
        "no-save save save-txt save-img show visualize verbose v plots exist-ok save-conf do-train do-eval do-predict",
        (),
        "Leave it out.",
        bare=True,
    ),
    Other("push-to-hub", (), "After training, type segvit push MODEL user/repo.", bare=True),
    Other("task", (), "Leave it out: segvit only segments.", bare=True),
)
"""The table. A name that is the last part of a setting, such as `weight-decay`, needs no line."""

VALUES = (
    ("device", r"\d[\d, ]*|gpu|cuda:\d+|nvidia", "cuda", "To choose a GPU, set CUDA_VISIBLE_DEVICES=N before segvit."),
    ("device", r"-1|none", "cpu", ""),
    ("precision", r"16|16-mixed|half|float16|fp16-mixed|16-true", "fp16", ""),
    ("precision", r"bf16-mixed|bfloat16|amp|mixed|bf16-true", "bf16", ""),
    ("precision", r"32|32-true|float32|full|single", "fp32", ""),
    ("mode", r"sliding|sliding-window|windows?", "slide", ""),
    ("freeze", r"true|all|encoder", "backbone", ""),
    ("freeze", r"false", "none", ""),
)
"""Last part of a setting, pattern of values that other libraries give it, the value here, and a note."""


def find(name: str, known: Collection[str]) -> Found | None:
    """Return what a name means that is no setting, or None.

    Args:
        name: as typed, perhaps with hyphens in front, underscores, or a path such as `trainer.max_epochs`.
        known: settings in full, such as `optim.lr`, and positional arguments in capitals.
    """
    spelled = {_normal(each) if each.islower() else each: each for each in known}
    whole = _normal(name)
    last = whole.rpartition(".")[2]
    for word in dict.fromkeys((whole, last)):
        if word in spelled:
            return Found([spelled[word]])
        if found := _in_table(word, spelled):
            return found
        if same := [setting for setting in spelled if setting.rpartition(".")[2] == word]:
            return Found([spelled[setting] for setting in same])
    others = [word for other in OTHERS for word in other.names.split() if len(word) > 3]
    if own := _similar(whole, spelled, SIMILAR):
        return Found([own], guessed=True)
    for word in nearest(last, others, cutoff=SIMILAR):
        if found := _in_table(word, spelled):
            return Found(found.options, found.note, found.bare, guessed=True)
    own = _similar(whole, spelled, 0.6)
    return Found([own], guessed=True) if own else None


def value_here(setting: str, value: str) -> tuple[str, str]:
    """Return the value that segvit has for one of another library, and a note; else the value itself and ""."""
    last = _normal(setting).rpartition(".")[2]
    for name, pattern, here, note in VALUES:
        if name == last and re.fullmatch(pattern, value.lower()):
            return here, note
    return value, ""


def hint(name: str, known: Collection[str]) -> str:
    """Return " (did you mean 'a' or 'b'?)" for a key of a file, with a note if there is one, or an empty text."""
    found = find(name, [each for each in known if each.islower()])
    if found is None:
        return ""
    words = [option.partition(" ")[0] for option in found.options]
    meant = f" (did you mean {' or '.join(map(repr, words))}?)" if words else ""
    return f"{meant}. {found.note.removesuffix('.')}" if found.note else meant


def _in_table(word: str, spelled: dict[str, str]) -> Found | None:
    """Return the line of the table with a word, or None if no command of these settings can use it."""
    other = next((other for other in OTHERS if word in other.names.split()), None)
    if other is None:
        return None
    for option in other.options:
        setting, space, value = option.partition(" ")
        if setting in spelled:
            return Found([f"{spelled[setting]}{space}{value}"], other.note, other.bare)
    return None if other.options else Found([], other.note, other.bare)


def _similar(name: str, spelled: dict[str, str], cutoff: float) -> str:
    """Return the setting that is similar to a name, in full or in its last part, or ""."""
    if near := nearest(name, spelled, cutoff=cutoff):
        return spelled[near[0]]
    ends = {setting.rpartition(".")[2]: each for setting, each in spelled.items()}
    near = nearest(name.rpartition(".")[2], ends, cutoff=cutoff)
    return ends[near[0]] if near else ""


def _normal(name: str) -> str:
    """Return a name in small letters, with hyphens for underscores and none in front."""
    return name.strip().lstrip("-").lower().replace("_", "-")
