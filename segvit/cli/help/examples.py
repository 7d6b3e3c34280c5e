"""Lines that the help of each command and its errors show; a test parses every one."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "segvit": (
        "segvit check-data --data.images photos --data.labels masks --data.classes a b",
        "segvit train --data.images photos --data.labels masks --data.classes a b",
        "segvit predict runs/train/best.safetensors photo.jpg --output seen",
        "segvit train --help",
    ),
    "check-data": (
        "segvit check-data --data.images photos --data.labels masks --data.classes a b",
        "segvit check-data --data.spec camvid --data.root camvid --sheet sheet.png",
    ),
    "train": (
        "segvit train --data.images photos --data.labels masks --data.classes a b",
        "segvit train --data.spec camvid --data.root camvid --output runs/camvid",
        "segvit train --init best.safetensors --data.spec camvid --data.root camvid",
        "segvit train --config finetune --data.spec camvid --data.root camvid",
        "segvit train --resume --output runs/camvid",
    ),
    "evaluate": (
        "segvit evaluate best.safetensors --data.spec camvid --data.root camvid",
        "segvit evaluate runs/train/best.safetensors --config runs/train/config.yaml",
    ),
    "predict": (
        "segvit predict runs/train/best.safetensors photo.jpg --output seen",
        "segvit predict runs/train/best.safetensors photos clip.mp4 --output seen",
        "segvit predict segvit-base-ade20k photos --output seen --device cuda",
    ),
    "app": ("segvit app runs/train/best.safetensors",),
    "export": (
        "segvit export best.safetensors model.onnx",
        "segvit export best.safetensors small.onnx --precision int8 --images photos",
    ),
    "report": ("segvit report runs/train",),
    "look": ("segvit look best.safetensors photo.jpg --output inside",),
    "info": (
        "segvit info runs/train/best.safetensors",
        "segvit info --plan finetune --num-classes 3",
    ),
    "bench": ("segvit bench best.safetensors --size 512 --batch 1 8",),
    "backbones": ("segvit backbones dinov2", "segvit backbones --size small --licence permissive"),
    "lr-find": ("segvit lr-find --data.spec camvid --data.root camvid",),
    "convert": ("segvit convert ade_54.6.pth model.safetensors",),
    "push": ("segvit push runs/train/best.safetensors user/repo",),
    "demo": ("segvit demo",),
    "data prepare": ("segvit data prepare ade20k --root ade20k",),
}
"""Lines of each command, and of segvit itself, the commonest first."""
