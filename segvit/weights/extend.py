"""Add a group of classes to a trained model, and drop a group again. Nothing of the other groups changes.

    group = new_group(model, spec)              # a model of the new classes alone, to train
    model = with_group(model, group)            # all classes
    model = segvit.drop_group(model, 1)         # without those that were added first

A group is a head of its own: class tokens, ATM stages and a presence classifier, on the maps of the same backbone.
The tokens of a stage attend to each other, so a token added to an old stage would change the scores of its classes.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from torch import nn

from segvit.config import EvalConfig, ModelConfig
from segvit.data.palette import Color, default_palette
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError
from segvit.models.atm import ATMHead
from segvit.models.create_decoder import create_head, group_settings
from segvit.models.segvit import SegViT
from segvit.utils.text import by_group, listed

KEPT = ("starts_from", "converted_from", "licence", "base_model")
"""Keys of `extra` that hold for a model with other groups too; scores do not."""


def new_group(
    model: SegViT, spec: DatasetSpec, *, config: ModelConfig | None = None, protocol: EvalConfig | None = None
) -> SegViT:
    """Create a model of new classes alone, on the backbone and the up-sampling of another model, which it shares.

    Its stages start as copies of those of the model's own head, which can read the maps.

    Args:
        model: of `create_model`; its parts are not copied.
        spec: the new classes.
        config: settings of the new model. Its network is that of `model`; crop and dropout may differ.
        protocol: how images are cut. Default: as for `model`.

    Raises:
        UserError: `model` has custom parts, or `config` adds an upscaler.
    """
    own = config_of(model)
    config = group_settings(config or own)
    if config.upscaler != own.upscaler:
        raise UserError(
            f"model.upscaler {config.upscaler} with a model whose upscaler is {own.upscaler}: all groups of classes "
            "share it, so leave model.upscaler out"
        )
    head, upscaler, old = create_head(config, model.backbone, num_classes=spec.num_classes), None, model.head
    assert isinstance(head, ATMHead)  # see `group_settings`
    if isinstance(old, ATMHead):  # it reads the maps already
        head.stages.load_state_dict(old.stages.state_dict())
        if old.presence:
            head.classifier.load_state_dict(old.classifier.state_dict())
    if model.upscaler is not None:
        rows = nn.Parameter(model.mean.new_zeros(spec.num_classes, model.upscaler.coefficients.shape[1]))
        upscaler = model.upscaler.regrouped([rows])
    return SegViT(
        model.backbone,
        head.to(model.mean.device),
        model.upsampling,
        upscaler=upscaler,
        mean=model.mean,
        std=model.std,
        num_classes=spec.num_classes,
        image_size=config.image_size,
        spec=spec,
        protocol=protocol or model.protocol,
        config=config,
    )


def with_group(model: SegViT, group: SegViT) -> SegViT:
    """Return a model of the classes of `model`, then those of `group`, a model of `new_group`. All parts are shared.

    Raises:
        UserError: `model` has custom parts or no class names, or there are too many classes.
    """
    assert group.spec is not None
    new = _regrouped(
        model,
        heads=[*_heads(model), group.head],
        rows=[*_rows(model), *_rows(group)],
        sizes=[*map(len, groups(model)), group.num_classes],
        spec=joint_spec(named_spec(model), group.spec),
        config=config_of(model),
    )
    new.extra |= group.extra
    return new


def drop_group(model: SegViT, group: int) -> SegViT:
    """Return a model without a group of classes. The scores of the others are unchanged to the bit.

    Examples:
        >>> import segvit
        >>> model = segvit.load_model("best.safetensors")
        >>> segvit.groups(model)
        (('background', 'person'),)

    Args:
        model: a model of several groups; its parts are shared, not copied.
        group: number of the group, from 0: the classes that the model was first trained on.

    Raises:
        UserError: there is no such group, it is the only one, or the model has custom parts.
    """
    config, names = config_of(model), _groups_with(model, group)
    if len(names) == 1:
        raise UserError(f"group 0 is the only one of the model ({', '.join(names[0])}), so it cannot be dropped")
    heads, rows, sizes = _heads(model), _rows(model), [len(each) for each in names]
    start = sum(sizes[:group])
    dropped = range(start, start + sizes[group])
    del heads[group], rows[group : group + 1], sizes[group]
    return _regrouped(
        model,
        heads=heads,
        rows=rows,
        sizes=sizes,
        spec=None if model.spec is None else without_classes(model.spec, dropped),
        config=replace(group_settings(config), added_head=True) if group == 0 else config,
    )


def only_group(model: SegViT, group: int) -> SegViT:
    """Return a model of one group of classes alone, whose scores are unchanged to the bit.

    Args:
        model: its parts are shared, not copied. A model of a single group is returned unchanged.
        group: number of the group, from 0.

    Raises:
        UserError: there is no such group, or the model has custom parts.
    """
    for other in reversed(range(len(_groups_with(model, group)))):
        if other != group:
            model = drop_group(model, other)
    return model


def _groups_with(model: SegViT, group: int) -> tuple[tuple[str, ...], ...]:
    """Return the class names of all groups.

    Raises:
        UserError: there is no group of that number.
    """
    names = groups(model)
    if not 0 <= group < len(names):
        raise UserError(f"group {group}: the model has the groups 0 to {len(names) - 1}: {listed(names)}")
    return names


def groups(model: SegViT) -> tuple[tuple[str, ...], ...]:
    """Return the class names of each group, in the order in which they were added."""
    return by_group(model.classes, () if model.config is None else model.config.added_classes)


def config_of(model: SegViT) -> ModelConfig:
    """Return the settings of a model of `create_model`.

    Raises:
        UserError: its parts are your own.
    """
    if model.config is None:
        raise UserError("groups of classes: this model has custom parts; give one that segvit created")
    return model.config


def named_spec(model: SegViT) -> DatasetSpec:
    """Return the spec of a model.

    Raises:
        UserError: its classes have no names.
    """
    if model.spec is None:
        raise UserError(
            "the classes of the model have no names, so none can be added to them: set model.spec, and save it"
        )
    return model.spec


def joint_spec(old: DatasetSpec, new: DatasetSpec) -> DatasetSpec:
    """Return the spec of the classes of `old`, then those of `new`, in the label format of `old`.

    A new class keeps its raw value and its colour unless an old class has them.

    Raises:
        UserError: a name is in both, or there are too many classes.
    """
    if shared := [name for name in new.classes if name in old.classes]:
        raise UserError(f"class {shared[0]!r} is in the model already: leave it out, or rename it")
    count = old.num_classes + new.num_classes
    if count > IGNORE_INDEX:
        raise UserError(f"{count} classes in all: a model has {IGNORE_INDEX} at most")
    raws = [value for index in range(old.num_classes) for value in old.raw_values(index)]
    colors = list(old.palette)
    for raw, color in zip(new.raw_ids, new.palette, strict=True):
        raws.append(raw if raw not in raws else next(value for value in range(len(raws) + 1) if value not in raws))
        colors.append(_free_color(color, colors))
    added = tuple(raws[-new.num_classes :])
    return replace(
        old,
        classes=(*old.classes, *new.classes),
        palette=tuple(colors),
        raw_ids=(*old.raw_ids, *added),
        merged=(*old.merged, *((),) * new.num_classes) if old.merged else (),
        ignore=tuple(value for value in old.ignore if value not in added),
    )


def _free_color(color: Color, taken: Sequence[Color]) -> Color:
    """Return a colour, or another one if a class has it already."""
    if color not in taken:
        return color
    return next(each for each in default_palette(len(taken) + 1) if each not in taken)


def without_classes(spec: DatasetSpec, dropped: Collection[int]) -> DatasetSpec:
    """Return a spec without some classes; pixels of their raw values are ignored."""
    kept = [index for index in range(spec.num_classes) if index not in dropped]
    gone = tuple(value for index in dropped for value in spec.raw_values(index))
    return replace(
        spec,
        classes=tuple(spec.classes[index] for index in kept),
        palette=tuple(spec.palette[index] for index in kept),
        raw_ids=tuple(spec.raw_ids[index] for index in kept),
        merged=tuple(spec.merged[index] for index in kept) if spec.merged else (),
        ignore=(*spec.ignore, *gone),
        others="ignore" if spec.others in [spec.classes[index] for index in dropped] else spec.others,
    )


def _heads(model: SegViT) -> list[nn.Module]:
    """Return the head of each group."""
    return [model.head, *model.added]


def _rows(model: SegViT) -> list[nn.Parameter]:
    """Return the coefficients of the upscaler of each group; none if there is no upscaler."""
    return [] if model.upscaler is None else [model.upscaler.coefficients, *model.upscaler.added]


def _regrouped(
    model: SegViT,
    *,
    heads: Sequence[nn.Module],
    rows: Sequence[nn.Parameter],
    sizes: Sequence[int],
    spec: DatasetSpec | None,
    config: ModelConfig,
) -> SegViT:
    """Return a model of some heads, of so many classes each, with the other parts and the mode of `model`.

    Args:
        model: gives the other parts.
        heads: of each group.
        rows: coefficients of the upscaler of each group; empty if there is no upscaler.
        sizes: number of classes of each group.
        spec: of all classes.
        config: settings of the model; its `added_classes` follow from the sizes.
    """
    new = SegViT(
        model.backbone,
        heads[0],
        model.upsampling,
        upscaler=model.upscaler.regrouped(rows) if rows else None,
        added=heads[1:],
        mean=model.mean,
        std=model.std,
        num_classes=sum(sizes),
        image_size=model.image_size,
        spec=spec,
        protocol=model.protocol,
        config=replace(config, added_classes=tuple(sizes[1:])),
    )
    new.extra = {key: model.extra[key] for key in KEPT if key in model.extra}
    return new.train(model.training)
