"""A transform of one's own: its calling forms, its seeds, what it may return, and its name in settings."""

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from segvit.config import AugmentConfig
from segvit.data.augment.own import OwnTransform, imported, open_own, takes_keywords
from segvit.data.augment.transform import TrainTransform
from segvit.data.sampling.crops import TrainingSamples, collate
from segvit.data.sampling.order import EndlessBatches
from segvit.data.shapes.scenes import ShapesDataset
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError

IMAGE = torch.randint(256, (3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(5, (12, 12), generator=torch.Generator().manual_seed(1))


def own(function: Callable[..., Any]) -> OwnTransform:
    return OwnTransform(function, name="mine", num_classes=5)


class Compose:
    """A pipeline in the calling form of Albumentations: keywords, arrays, a dict, and generators of its own."""

    def __init__(self) -> None:
        self.random_generator, self.py_random = np.random.default_rng(), random.Random()

    def set_random_state(self, random_generator: np.random.Generator, py_random: random.Random) -> None:
        self.random_generator, self.py_random = random_generator, py_random

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        assert not args and set(data) == {"image", "mask"}
        image, mask = data["image"], data["mask"]
        assert image.dtype == np.uint8 and image.shape == (*mask.shape, 3) and mask.dtype == np.uint8
        if self.py_random.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return {"image": np.roll(image, int(self.random_generator.integers(5)), axis=2), "mask": mask}


def with_globals(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from all three global generators."""
    shift = random.randrange(6) + int(np.random.randint(6)) + int(torch.randint(6, ()))  # noqa: NPY002
    return image.roll(shift, 2), mask.roll(shift, 1)


V2 = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(30, fill={tv_tensors.Image: 9, tv_tensors.Mask: 255})])


@pytest.mark.parametrize("function", [V2, Compose(), with_globals], ids=["v2", "keywords", "function"])
def test_the_seed_alone_decides(function: Callable[..., Any]) -> None:
    transform, results = own(function), []
    for seed in (3, 2**63 + 5, 3):
        torch.manual_seed(len(results))
        random.seed(len(results))
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
        image, labels = transform(IMAGE, LABELS, seed)
        assert type(image) is Tensor and image.dtype == torch.uint8 and image.is_contiguous()
        assert type(labels) is Tensor and labels.dtype == torch.int64 and labels.shape == (12, 12)
        assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[2])
        assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]  # noqa: NPY002
        results.append((image, labels))
    assert all(torch.equal(one, other) for one, other in zip(results[0], results[2], strict=True))
    seen = {own(function)(IMAGE, LABELS, seed)[0].numpy().tobytes() for seed in range(12)}
    assert len(seen) > 3


def test_images_and_masks_come_as_each_form_expects() -> None:
    def check(image: Any, mask: Any) -> Any:
        assert isinstance(image, tv_tensors.Image) and isinstance(mask, tv_tensors.Mask)
        assert image.shape == (3, 12, 12) and image.dtype == torch.uint8 and mask.dtype == torch.int64
        return image, mask

    image, labels = own(check)(IMAGE, LABELS, 0)
    assert torch.equal(image, IMAGE) and torch.equal(labels, LABELS)
    ignored = LABELS.clone()
    ignored[0] = IGNORE_INDEX
    image, labels = own(lambda *, image, mask: {"image": image, "mask": mask})(IMAGE, ignored, 0)
    assert torch.equal(image, IMAGE) and torch.equal(labels, ignored)
    assert takes_keywords(Compose()) and takes_keywords(lambda **data: data)
    assert not any(map(takes_keywords, (V2, with_globals, lambda *parts: parts, lambda a, b, **more: a, max)))


@pytest.mark.parametrize(
    "returned, message",
    [
        (lambda i, m: i, "mine returned Image: return the image and its mask, as two values"),
        (lambda i, m: (i.float() / 255, m), "the image as float32 (3, 12, 12): return uint8 (3, height, width) of 12"),
        (lambda i, m: (i[:, 1:], m[1:]), "the image as uint8 (3, 11, 12)"),
        (lambda i, m: (i, m[None]), "the mask as int64 (1, 12, 12): return whole numbers of 12 x 12 px"),
        (lambda i, m: (i, m.float()), "the mask as float32 (12, 12)"),
        (lambda i, m: (i, "m"), "the mask as str"),
        (lambda i, m: (i, m + 3), "a mask with 5, 6, 7: its values must stay 0 to 4, or 255 for ignored"),
        (lambda i, m: (i, m - 1), "a mask with -1"),
        (lambda i, m: 1 / 0, "mine failed on a crop of 12 x 12 px: ZeroDivisionError: division by zero ("),
        (lambda *, image, mask: {"image": image}, "mine failed on a crop of 12 x 12 px: KeyError: 'mask'"),
        (
            lambda *, image, mask: {"image": image[1:], "mask": mask},
            "uint8 (11, 12, 3): return uint8 (height, width, 3)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(returned: Callable[..., Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        own(returned)(IMAGE, LABELS, 0)
    assert message in str(error.value)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder, as a user writes one."""
    (tmp_path / "own_steps_for_test.py").write_text(
        "def strong(image, mask):\n    return 255 - image, mask\nnumber = 3\nclass Steps:\n    pass\n"
    )
    (tmp_path / "broken_for_test.py").write_text("import nowhere_at_all\n")
    (tmp_path / "leaving_for_test.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "own_steps_for_test"
    sys.modules.pop("own_steps_for_test", None)


def test_a_setting_names_a_transform(module: str) -> None:
    transform = open_own(None, f"{module}:strong", num_classes=5)
    assert transform and torch.equal(transform(IMAGE, LABELS, 0)[0], 255 - IMAGE)
    for name, message in {
        module: "give package:function",
        f"{module}.py:strong": "give package:function",
        f"{module}:weak": f"{module} has no weak",
        f"{module}:Steps": "is a class: give an instance, such as `steps = Steps()`",
        "leaving_for_test:f": "leaving_for_test cannot be imported (SystemExit: 3)",
        f"{module}:number": "is int: give a function of an image and a mask",
        "nowhere_for_test:f": "nowhere_for_test cannot be imported (ModuleNotFoundError",
        "broken_for_test:f": "broken_for_test cannot be imported (ModuleNotFoundError: No module named 'nowh",
    }.items():
        with pytest.raises(UserError) as error:
            imported(name)
        assert message in str(error.value)
    with pytest.raises(UserError, match="leave one of them out"):
        open_own(with_globals, f"{module}:strong", num_classes=5)
    with pytest.raises(UserError, match="transform is str"):
        open_own("strong", None, num_classes=5)  # type: ignore[arg-type]
    assert open_own(None, None, num_classes=5) is None


def drawn(function: Callable[..., Any], workers: int) -> list[Any]:
    transform = TrainTransform(24, AugmentConfig(), (0, 0, 0), own=OwnTransform(function, name="mine", num_classes=8))
    crops = TrainingSamples(ShapesDataset(4, size=32), transform, seed=0)
    loader: Any = DataLoader(
        crops, batch_sampler=EndlessBatches(4, 2, seed=0, steps=3), num_workers=workers, collate_fn=collate
    )
    return list(loader)


@pytest.mark.parametrize("function", [Compose(), with_globals], ids=["keywords", "function"])
def test_workers_change_nothing(function: Callable[..., Any]) -> None:
    for batch, other in zip(drawn(function, 0), drawn(function, 2), strict=True):
        assert all(torch.equal(one, two) for one, two in zip(batch, other, strict=True))


def test_its_errors_reach_the_main_process() -> None:
    batch = drawn(lambda image, mask: (image, mask + 100), 1)[0]
    assert isinstance(batch, UserError) and "mine returned a mask with 100" in str(batch)


def test_albumentations_itself() -> None:
    albumentations = pytest.importorskip("albumentations", reason="albumentations is not installed")
    pipeline = albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Affine(rotate=(-30, 30), fill_mask=IGNORE_INDEX, p=0.7),
            albumentations.RandomBrightnessContrast(p=0.7),
        ]
    )
    transform = own(pipeline)
    results = [transform(IMAGE, LABELS, seed) for seed in (*range(8), *range(8))]
    for one, other in zip(results[:8], results[8:], strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert len({image.numpy().tobytes() for image, _ in results}) == 8
    for batch, other in zip(drawn(pipeline, 0), drawn(pipeline, 2), strict=True):
        assert all(torch.equal(one, two) for one, two in zip(batch, other, strict=True))
