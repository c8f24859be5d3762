"""torchvision, also where its C++ operations are missing (as in some CPU builds): transforms and
ResNets need none but their names."""

import torch

try:
    import torchvision
except RuntimeError:
    names = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        names.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
