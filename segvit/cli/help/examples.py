"""Lines that the help of each command and its errors show; a test parses every one."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "segvit": (
        "segvit check-data photos masks",
        "segvit train photos masks",
        "segvit predict runs/photos/best.safetensors photo.jpg --output seen",
        "segvit train --help",
    ),
    "check-data": (
        "segvit check-data photos masks --data.classes a b",
        "segvit check-data --data.spec camvid --data.root camvid --sheet sheet.png",
        "segvit check-data photos masks --augmented crops.png --augment.preset aerial",
    ),
    "train": (
        "segvit train photos masks",
        "segvit train photos masks --data.classes background=0 cat=255",
        "segvit train --data.spec camvid --data.root camvid --output runs/camvid",
        "segvit train --init best.safetensors --data.spec camvid --data.root camvid",
        "segvit train --config finetune --data.spec camvid --data.root camvid",
        "segvit train --resume --output runs/camvid",
    ),
    "evaluate": (
        "segvit evaluate best.safetensors --data.spec camvid --data.root camvid",
        "segvit evaluate runs/photos/best.safetensors",
    ),
    "predict": (
        "segvit predict runs/photos/best.safetensors photo.jpg --output seen",
        "segvit predict runs/photos/best.safetensors photos clip.mp4 --output seen",
        "segvit predict segvit-base-ade20k photos --output seen --device cuda",
    ),
    "app": (
        "segvit app runs/photos/best.safetensors",
        "segvit app best.safetensors --api-keys-file keys.txt --root-path /segvit",
        "segvit app best.safetensors --label-studio-url http://127.0.0.1:8080",
    ),
    "cvat": ("segvit cvat best.safetensors cvat-function",),
    "export": (
        "segvit export best.safetensors model.onnx",
        "segvit export best.safetensors small.onnx --precision int8 --images photos",
        "segvit export best.safetensors site --format web",
    ),
    "report": ("segvit report runs/photos",),
    "look": ("segvit look best.safetensors photo.jpg --output inside",),
    "info": (
        "segvit info runs/photos/best.safetensors",
        "segvit info",
        "segvit info --plan finetune --num-classes 3",
    ),
    "bench": ("segvit bench best.safetensors --size 512 --batch 1 8",),
    "backbones": ("segvit backbones dinov2", "segvit backbones --size small --licence permissive"),
    "lr-find": (
        "segvit lr-find photos masks",
        "segvit lr-find --data.spec camvid --data.root camvid",
    ),
    "merge-find": (
        "segvit merge-find best.safetensors fast.safetensors --images photos",
        "segvit merge-find a.safetensors b.safetensors --budget 0.7 --images photos",
    ),
    "convert": ("segvit convert ade_54.6.pth model.safetensors",),
    "drop-group": ("segvit drop-group extended.safetensors smaller.safetensors --group 1",),
    "push": ("segvit push runs/photos/best.safetensors user/repo",),
    "demo": ("segvit demo",),
    "data prepare": ("segvit data prepare ade20k --root ade20k",),
}
"""Lines of each command, and of segvit itself, the commonest first."""
