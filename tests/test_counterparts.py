"""The heads that the benchmark compares with ATM: their outputs, their losses, and the files of frozen features."""

import importlib
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import segvit
from segvit.config import LossConfig, ModelConfig
from segvit.data.augment.transform import TrainTransform
from segvit.data.sample import Sample
from segvit.data.spec import IGNORE_INDEX, load_spec
from segvit.losses import normalizers

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
VIT = ModelConfig(
    backbone="vit_tiny_patch16_224", patch_size=8, embed_dim=32, num_heads=2, depth=12, image_size=32, init_std=0.1
)
CLASSES = 3
SIZE = (29, 48)
"""Height and width of the images; the height is no multiple of the patch."""


@pytest.fixture(scope="module")
def heads() -> Any:
    """The modules of the benchmark, which runs as a script in its own folder."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        names = ("backbone", "data", "per_pixel", "rows", "set_loss")
        found = {name: importlib.import_module(f"heads.{name}") for name in names}
        return found | {"main": importlib.import_module("counterparts")}
    finally:
        sys.path.remove(str(BENCHMARKS))


ROW_NAMES = (
    "linear",
    "setr",
    "segmenter",
    "dpt",
    "eomt",
    "eomt_masked",
    "plain",
    "shrunk",
    "shrunk_paper",
    "naive_shrunk",
)


def create(heads: Any, row: str, **settings: Any) -> segvit.SegViT:
    torch.manual_seed(0)
    common = {"vit": VIT, "weights": None, "num_classes": CLASSES, "size": 32, "frozen": 0, "steps": 6}
    model: segvit.SegViT = heads["rows"].create(heads["rows"].ROWS[row], **common | settings)
    return model


def batch() -> tuple[Tensor, Tensor]:
    """Two images whose colour is their class, with an ignored strip."""
    labels = torch.randint(CLASSES, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    labels = labels.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, : SIZE[0], : SIZE[1]]
    images = torch.stack([labels * 100, 200 - labels * 90, labels * 20], dim=1).byte()
    labels = labels.clone()
    labels[:, :, :4] = 255
    return images, labels


def test_rows_are_all_tested(heads: Any) -> None:
    assert tuple(heads["rows"].ROWS) == ROW_NAMES


@pytest.mark.parametrize("row", ROW_NAMES)
def test_outputs_fit_the_package(heads: Any, row: str) -> None:
    model = create(heads, row).eval()
    images, _ = batch()
    with torch.no_grad():
        output = model(images)
    num_queries = output.class_logits.shape[2]
    assert num_queries == (100 if row.startswith("eomt") else CLASSES)
    assert output.class_logits.shape[1:] == (2, num_queries, CLASSES + 1)
    assert output.mask_logits.shape[:3] == output.class_logits.shape[:3]
    assert output.image_size == SIZE
    assert output.padded_size == (32, 48)
    labels, scores = segvit.label_map(output), segvit.scores(output)
    ours = scores.gather(1, labels[:, None])[:, 0]
    assert (scores.amax(dim=1) - ours).max() <= 1e-6
    if heads["rows"].ROWS[row].head is not None:
        features = model.backbone(model.pad(model.normalise(images)))
        (grid,) = model.head.logits(features, deep=False)
        logits = F.interpolate(grid, size=(32, 48), mode="bilinear", align_corners=False)
        assert torch.equal(labels, logits[..., : SIZE[0], : SIZE[1]].argmax(dim=1))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[] if row in ("linear", "dpt", "eomt_masked", "plain") else [pytest.mark.slow])
        for row in ROW_NAMES
    ],
)
def test_training_lowers_the_loss(heads: Any, row: str) -> None:
    model, (images, labels) = create(heads, row).train(), batch()
    criterion = heads["rows"].ROWS[row].criterion
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    totals = []
    for _ in range(6):
        torch.manual_seed(0)  # the same dropout and the same points
        divisors = normalizers(labels, CLASSES)
        losses = criterion(model(images), labels, config=LossConfig(), divisors=divisors, class_weights=None)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(losses.total.item())
    assert totals[-1] < 0.97 * totals[0], totals


@pytest.mark.parametrize("row", ["dpt", "shrunk", "eomt"])
def test_stored_tokens_change_no_output(heads: Any, tmp_path: Path, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = batch()
    with torch.no_grad():
        expected = create(heads, row).eval()(images).mask_logits
        model = create(heads, row, frozen=12, store=tmp_path).eval()
        model(images[:1])
        assert torch.equal(model(images).mask_logits, model(images).mask_logits)  # one was stored, one was not
        monkeypatch.setattr(heads["backbone"].StagedViT, "_first_part", None)  # only files are left
        found = model(images).mask_logits
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    assert not create(heads, row, frozen=0, store=tmp_path).backbone.state_dict().keys() - model.backbone.state_dict()


def test_frozen_blocks_are_the_only_ones_stored(heads: Any, tmp_path: Path) -> None:
    for row, frozen, stored in [("plain", 12, True), ("plain", 9, True), ("plain", 0, False), ("eomt", 9, True)]:
        backbone = create(heads, row, frozen=frozen, store=tmp_path).backbone
        stages = backbone.stages if row == "eomt" else backbone
        assert (stages.store is not None) is stored
        assert stages.first == (9 if row == "eomt" else frozen)
    assert create(heads, "eomt", frozen=0, store=tmp_path).backbone.stages.store is None


def test_one_staged_block_at_a_time_is_the_whole_backbone(heads: Any) -> None:
    images = torch.rand(1, 3, 32, 40)
    for structure in ("plain", "shrunk"):
        torch.manual_seed(0)
        vit = segvit.create_model(config=replace(VIT, structure=structure), num_classes=CLASSES).backbone.eval()
        with torch.no_grad():
            for first in (0, 3, 6):
                for ours, theirs in zip(
                    heads["backbone"].StagedViT(vit, first=first)(images), vit(images), strict=True
                ):
                    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("row, weights", [("linear", (1,)), ("setr", (0.4, 0.4, 1)), ("dpt", (0.2, 1))])
def test_cross_entropy_is_that_of_the_logits(heads: Any, row: str, weights: tuple[float, ...]) -> None:
    model, (images, labels) = create(heads, row).eval(), batch()
    losses = (
        heads["rows"]
        .ROWS[row]
        .criterion(
            model(images), labels, config=LossConfig(), divisors=normalizers(labels, CLASSES), class_weights=None
        )
    )
    grids = model.head.logits(model.backbone(model.pad(model.normalise(images))))
    for grid, weight, found in zip(grids, weights, losses["entropy"], strict=True):
        logits = F.interpolate(grid, size=(32, 48), mode="bilinear", align_corners=False)
        expected = F.cross_entropy(logits[..., : SIZE[0], : SIZE[1]], labels, ignore_index=255)
        torch.testing.assert_close(found, weight * expected)


def test_dpt_supervises_the_fusion_before_the_last(heads: Any) -> None:
    head = create(heads, "dpt").head.eval()
    before, last = head.trunk([torch.randn(1, 32, 4, 6) for _ in range(4)])
    assert before.shape == (1, 64, 16, 24)
    assert last.shape == (1, 64, 32, 48)
    auxiliary, prediction = head.outputs
    assert auxiliary([before, None]).shape[2:] == before.shape[2:]
    assert prediction([None, last]).shape[2:] == last.shape[2:]


def test_final_norm_is_the_pretrained_one(heads: Any, tmp_path: Path) -> None:
    state = {"norm.weight": torch.rand(32).half(), "norm.bias": torch.rand(32).half()}
    save_file(state, tmp_path / "vit.safetensors")
    norm = heads["rows"].final_norm(32, tmp_path / "vit.safetensors")
    for build in (heads["rows"].linear, heads["rows"].segmenter):
        assert norm in list(build(32, CLASSES, norm).modules())
    assert torch.equal(norm.weight, state["norm.weight"].float())
    assert torch.equal(norm.bias, state["norm.bias"].float())


def test_matching_finds_the_queries_that_are_right(heads: Any) -> None:
    _, labels = batch()
    order = torch.tensor([4, 0, 2])  # query of each class
    masks = torch.full((6, *SIZE), -8.0)
    classes = torch.zeros(6, CLASSES + 1)
    for k, query in enumerate(order.tolist()):
        masks[query][labels[0] == k] = 8
        classes[query, k] = 5
    torch.manual_seed(0)
    queries, which = heads["set_loss"].match(classes, masks, labels[0], torch.arange(CLASSES), SIZE)
    assert torch.equal(order[which], queries)
    output = segvit.SegOutput(classes[None, None], masks[None, None], SIZE, SIZE)
    right, wrong = (
        heads["set_loss"].set_loss(
            output._replace(mask_logits=output.mask_logits * sign),
            labels[:1],
            config=LossConfig(),
            divisors=normalizers(labels[:1], CLASSES),
            class_weights=None,
        )
        for sign in (1, -1)
    )
    assert right["mask"] < 0.01 < 10 < wrong["mask"]
    assert right["dice"] < 0.05 < 1 < wrong["dice"]


def test_masks_of_attention_are_annealed_away(heads: Any) -> None:
    model = create(heads, "eomt_masked", steps=12).train()
    eomt, (images, _) = model.backbone, batch()
    shares = []
    for _ in range(12):
        shares.append([round(eomt.masked_share(block), 2) for block in range(3)])
        model(images)
    assert shares[0] == shares[2] == [1, 1, 1]
    assert shares[3][0] == 0.54
    assert shares[4] == [0, 1, 1]
    assert shares[7][:2] == [0, 0]
    assert shares[10] == [0, 0, 0]

    tokens, masks = torch.zeros(2, 100 + 1 + 24, 32), torch.randn(2, 100, 16, 24)
    allowed = eomt.attention_mask(masks, tokens, (4, 6), share=1.0)
    small = F.interpolate(masks, size=(4, 6), mode="bilinear", align_corners=False).flatten(2)
    assert torch.equal(allowed[:, 0, :100, 101:], small > 0)
    assert allowed[:, 0, :, :101].all()
    assert allowed[:, 0, 100:].all()
    assert eomt.attention_mask(masks, tokens, (4, 6), share=0.0).all()


def test_a_head_without_products_costs_nothing(heads: Any) -> None:
    parts = {part.name: part for part in segvit.profile(create(heads, "eomt"), SIZE).parts}
    assert parts["ATM"].multiply_adds == parts["ATM"].parameters == 0
    assert parts["backbone"].multiply_adds > 0


def test_people_have_four_classes(heads: Any) -> None:
    class Clothing:
        spec = load_spec("clothing")

        def __len__(self) -> int:
            return 1

        def describe(self, index: int) -> str:
            return "photo"

        def read(self, index: int) -> Sample:
            labels = torch.arange(59).view(1, 59)
            return Sample(torch.zeros(3, 1, 59, dtype=torch.uint8), labels, "photo")

    people = heads["data"].People(Clothing())
    labels = people.read(0).labels
    spec = Clothing.spec
    assert [people.spec.classes[k] for k in labels[0, [0, 19, 41, 15, 55]]] == [
        "background",
        "hair",
        "skin",
        "clothes",
        "clothes",
    ]
    assert (spec.classes[19], spec.classes[41]) == ("hair", "skin")
    transform = TrainTransform(16, segvit.AugmentConfig(resize_long=None), [0, 0, 0])
    crops = heads["data"].drawn(people, [0], views=2, transform=transform)
    assert len(crops) == 2
    values = {int(value) for index in range(2) for value in crops.read(index).labels.unique()}
    assert IGNORE_INDEX in values  # the padding
    assert not people.spec.unknown(values)
    assert crops.read(1).labels.shape == (16, 16)
    assert torch.equal(
        crops.read(1).image, heads["data"].drawn(people, [0], views=2, transform=transform).read(1).image
    )


@pytest.mark.parametrize(
    "row", ["setr", *(pytest.param(row, marks=pytest.mark.slow) for row in ("linear", "dpt", "plain"))]
)
def test_auxiliary_outputs_cost_nothing(heads: Any, row: str) -> None:
    model = create(heads, row)
    parts = segvit.profile(model, SIZE).parts
    whole = sum(part.multiply_adds for part in parts if part.name != "scores")
    spent = heads["main"].multiply_adds(model, SIZE)
    assert spent == whole if row == "linear" else spent < whole


@pytest.mark.slow
def test_files_of_results_are_named_by_all_that_matters(heads: Any, tmp_path: Path) -> None:
    main = heads["main"]
    weights = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for file in weights:
        file.write_text(file.name)
    common = {"frozen": 12, "size": 252, "views": 3, "threads": 2, "weights": weights[0], "batch_size": 8}
    common |= {"device": "cpu", "precision": "fp32"}

    def digest(row: str = "dpt", rate: float = 1e-3, **changes: Any) -> str:
        options = Namespace(**common | changes)
        config = main.config_of("camvid", options, rate=rate, seed=0, steps=10)
        return str(main.digest_of(row, Path("camvid"), config, options))

    changes = [{"views": 2}, {"weights": weights[1]}, {"precision": "bf16"}, {"threads": 1}, {"size": 280}]
    changes += [{"rate": 2e-3}, {"row": "setr"}, {"row": "plain"}]
    assert digest() == digest()
    assert len({digest(), *(digest(**change) for change in changes)}) == 1 + len(changes)
    for row, names in {
        "dpt": ("class Pyramid", "def dpt(", "def cross_entropy", "0.2"),
        "eomt": ("class EoMT", "def set_loss"),
        "shrunk": ("class ATMHead", "class TapUpsampling", "def criterion(", "(6, 8, 11), 7"),
    }.items():
        source = "\n".join(main.source_of(row))
        assert all(name in source for name in names)
        assert "class PlainViT(" not in source


def test_files_of_tokens_are_named_by_the_precision(heads: Any, tmp_path: Path) -> None:
    store, image = create(heads, "plain", frozen=12, store=tmp_path).backbone.store, torch.zeros(3, 8, 8)
    expected = store.path(image, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert store.path(image, 5) != expected
    assert store.path(image, 5) == expected


def test_rates_at_the_end_of_a_search_are_marked(heads: Any) -> None:
    main = heads["main"]
    costs = {"linear": {"parameters": 22e6, "multiply_adds": 1e10, "ms": 100.0}}
    common = {"row": "linear", "seed": 0, "steps": 4, "miou": 0.5, "boundary_iou": 0.2, "iou": {}, "seconds": 1.0}
    cases = [(5e-4, True, True), (1.5e-3, True, False), (4.5e-3, True, True), (5e-4, False, False)]
    for rate, searched, marked in cases:
        table = main.table_of("camvid", {"linear": [main.Result(rate=rate, **common)]}, costs, searched=searched)
        assert (table.caption is not None) is marked
        assert next(iter(table.columns[-1].cells)).endswith("*") is marked
    assert list(main.cost_table("camvid", costs).columns[1].cells) == ["22.00"]


def test_table_and_plot(heads: Any, tmp_path: Path) -> None:
    main = heads["main"]
    common = {"rate": 5e-4, "seed": 0, "steps": 4, "boundary_iou": 0.2, "iou": {"sky": 0.5}, "seconds": 1.0}
    found = {row: [main.Result(row=row, miou=0.1 * number, **common)] for number, row in enumerate(ROW_NAMES)}
    costs = {row: {"parameters": 22e6, "multiply_adds": 1e10, "ms": 100.0 + number} for number, row in enumerate(found)}
    assert main.table_of("camvid", found, costs, searched=False).row_count == len(ROW_NAMES)
    main.plot({"camvid": found, "clothing": found}, {"camvid": costs, "clothing": costs}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 20_000
