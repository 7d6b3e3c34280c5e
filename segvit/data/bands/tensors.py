"""Turn decoded images into tensors.

tensor = to_tensor(pixels.values)           # (N, H, W)

Letters: H, W size of an image, N bands.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def to_tensor(values: npt.NDArray[Any]) -> Tensor:
    """Return an image (H, W, N) as a tensor (N, H, W) of its own memory, as a model takes it."""
    return torch.from_numpy(np.array(values.transpose(2, 0, 1), order="C"))
