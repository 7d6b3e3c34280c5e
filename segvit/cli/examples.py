"""Lines that the help of each command and its errors show; a test parses every one."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("segvit demo", "segvit demo --output runs/tour --device cuda"),
    "check-data": (
        "segvit check-data --data.images photos --data.labels masks --data.classes sky road car",
        "segvit check-data --data.spec camvid --data.root camvid --sheet sheet.png",
    ),
    "train": (
        "segvit train --data.images photos --data.labels masks --data.classes sky road car",
        "segvit train --data.spec camvid --data.root camvid --output runs/camvid",
        "segvit train --config finetune --data.spec camvid --data.root camvid --steps 2000",
        "segvit train --resume --output runs/camvid",
    ),
    "evaluate": (
        "segvit evaluate runs/camvid/best.safetensors --data.spec camvid --data.root camvid",
        "segvit evaluate runs/camvid/best.safetensors --config runs/camvid/config.yaml --pictures errors",
    ),
    "predict": (
        "segvit predict runs/camvid/best.safetensors photo.jpg --output seen",
        "segvit predict runs/camvid/best.safetensors photos clip.mp4 --output seen --device cuda",
    ),
    "app": ("segvit app runs/camvid/best.safetensors",),
    "export": (
        "segvit export runs/camvid/best.safetensors model.onnx",
        "segvit export runs/camvid/best.safetensors small.onnx --precision int8 --images photos",
    ),
    "report": ("segvit report runs/camvid",),
    "look": ("segvit look runs/camvid/best.safetensors photo.jpg --output inside",),
    "info": (
        "segvit info runs/camvid/best.safetensors",
        "segvit info --plan finetune --num-classes 3",
    ),
    "bench": ("segvit bench runs/camvid/best.safetensors --size 512 --batch 1 8",),
    "backbones": ("segvit backbones dinov2", "segvit backbones --size small --licence permissive"),
    "lr-find": ("segvit lr-find --data.spec camvid --data.root camvid",),
    "convert": ("segvit convert ade_54.6.pth model.safetensors",),
    "push": ("segvit push runs/camvid/best.safetensors user/repo",),
    "data prepare": ("segvit data prepare ade20k --root ade20k",),
}
"""Lines of each command, the commonest first."""
