"""What is said of pairs and label values that do not do, and what to type."""

from collections.abc import Sequence

from segvit.data.files import Pair, first
from segvit.data.resolve import FOLDERS
from segvit.data.spec import DatasetSpec

MANY_VALUES = 20
"""Unknown values in one label file from which it is taken for no label map at all."""


def explain_sizes(pair: Pair, image: tuple[int, int], labels: tuple[int, int]) -> str:
    """Text for a pair whose sizes (height, width) differ."""
    text = (
        f"{pair.image} is {image[1]} x {image[0]} pixels (width x height as displayed), but its label map "
        f"{pair.source} is {labels[1]} x {labels[0]}; "
    )
    if image == labels[::-1]:
        return text + "one of them lies on its side: an EXIF orientation of the image is applied; save both upright"
    return text + "make both the same size (label maps without interpolation), or remove the pair"


def explain_values(values: Sequence[int], spec: DatasetSpec, *, what: str = "the file holds") -> str:
    """Text for label files that hold `values` (distinct, sorted), some of them unknown to `spec`."""
    unknown = spec.unknown(values)
    names = ", ".join(f"{raw} {name}" for name, raw in zip(spec.classes[:6], spec.raw_ids[:6], strict=False))
    text = (
        f"label value {first(unknown, 10)} is no class of {spec.name!r} "
        f"({names}{', ...' if spec.num_classes > 6 else ''}; ignored: {first(spec.ignore, 10) or 'none'}); "
        f"{what} {first(values, 20)}; "
    )
    if set(values) <= {0, 255}:
        return text + f"it looks like a 0/255 mask: {remap(spec, {0: 0, 1: 255})}"
    if len(unknown) > MANY_VALUES:
        return text + (
            "so many values look like a photo, or a mask that was resized with smoothing or saved with compression: "
            "write label maps without interpolation, as PNG (where the values are meant, a spec drops them by "
            "`others: ignore`)"
        )
    if len(unknown) == 1 and unknown[0] == max(spec.raw_ids) + 1 and set(spec.raw_ids) == set(range(spec.num_classes)):
        shifted = remap(spec, {k: raw + 1 for k, raw in enumerate(spec.raw_ids)})
        if 0 not in values:
            return text + f"all values look one too large: {shifted}"
        ignored = "`--data.ignore 0`" if spec.name == FOLDERS else "`ignore: [0]`"
        return text + f"a class name is missing, or 0 means unlabelled and classes begin at 1: {shifted} and {ignored}"
    if spec.name == FOLDERS:
        flags = " ".join(f"--data.ignore {value}" for value in (*spec.ignore, *unknown[:3]))
        return text + f"add it as a class, `--data.classes NAME={unknown[0]}`, or ignore it, `{flags}`"
    ignore = f"`ignore: {[*spec.ignore, *unknown[:10]]}` or `others: ignore`"
    return text + f"is this the right spec? In a spec of your own, add the class, or write {ignore}"


def remap(spec: DatasetSpec, raw_ids: dict[int, int]) -> str:
    """What to type so that class k has the value raw_ids[k] in the files."""
    rows = [(spec.classes[k] if k < spec.num_classes else "thing", raw) for k, raw in raw_ids.items()]
    if spec.name == FOLDERS:
        return "type `" + " ".join(f"--data.classes {name}={raw}" for name, raw in rows) + "`"
    return "write in the spec `classes: [" + ", ".join(f"{{name: {name}, raw: {raw}}}" for name, raw in rows) + "]`"
