"""Labels of a teacher in the ignored pixels of a training set, so that old classes are not forgotten.

    segvit train --init best.safetensors --teacher best.safetensors --data.classes car=1 cone=2 ...

Fine-tuning on images that label the new classes alone teaches a model that the old ones are absent. A teacher, usually
the model itself before the training, labels the other pixels (pseudo-labels, as in PLOP, CVPR 2021, without its
threshold).

Letters: H, W size of an image.
"""

import zlib
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import tv_tensors

from segvit.data.images import Unreadable
from segvit.data.sample import Sample, Samples
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError
from segvit.inference.protocol import image_labels
from segvit.models.modes import evaluating
from segvit.utils.distributed import gather, rank, world_size
from segvit.utils.text import counted
from segvit.weights.finetune import match_classes
from segvit.weights.load import load_model


class Taught:
    """Samples whose ignored pixels have the labels of a teacher.

    Args:
        samples: a dataset.
        fillings: number of a sample -> its label map (H, W) uint8, compressed; the others stay as they are.
    """

    def __init__(self, samples: Samples, fillings: dict[int, bytes]) -> None:
        self.samples, self._fillings = samples, fillings

    @property
    def spec(self) -> DatasetSpec:
        """Classes and colours."""
        return self.samples.spec

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> Sample:
        """Read a sample, and fill its ignored pixels."""
        sample = self.samples.read(index)
        if index not in self._fillings:
            return sample
        labels = sample.labels.as_subclass(Tensor)
        filling = torch.frombuffer(bytearray(zlib.decompress(self._fillings[index])), dtype=torch.uint8)
        filled = torch.where(labels == IGNORE_INDEX, filling.view(labels.shape).long(), labels)
        return sample._replace(labels=tv_tensors.Mask(filled))

    def describe(self, index: int) -> str:
        """Return the origin of a sample for messages."""
        return self.samples.describe(index)


def teach(name: str, samples: Samples, *, device: torch.device, say: Callable[[str], None] | None = None) -> Taught:
    """Label the ignored pixels of a training set by a teacher, once for all epochs. Processes share the work.

    Args:
        name: the teacher, as in `load_model`. It labels under its own protocol.
        samples: training set; classes are matched by name.
        device: where the teacher runs.
        say: prints what is done.

    Raises:
        UserError: the teacher cannot be read, or has no class of the dataset.
    """
    model = load_model(name).to(device)
    spec = samples.spec
    kept = match_classes(model.classes, spec.classes).kept
    if not kept:
        raise UserError(
            f"teacher {name}: none of its classes ({', '.join(model.classes)}) is one of the data "
            f"({', '.join(spec.classes)}), so it can label nothing: name its classes in the data as the model does"
        )
    if say:
        say(f"{name} labels the ignored pixels of {counted(len(samples), 'image')}, as far as they show its classes")
    numbers = torch.full((model.num_classes,), IGNORE_INDEX, dtype=torch.uint8)
    for new, old in kept.items():
        numbers[old] = new
    own: dict[int, bytes] = {}
    with evaluating(model):
        for index in range(rank(), len(samples), world_size()):
            try:
                sample = samples.read(index)
            except Unreadable:  # the run reports it, and may skip it
                continue
            if (sample.labels == IGNORE_INDEX).any():
                labels = image_labels(model, sample.image.as_subclass(Tensor).to(device))
                own[index] = zlib.compress(numbers[labels.cpu()].numpy().tobytes(), level=1)
    return Taught(samples, dict(gather(list(own.items()))))
