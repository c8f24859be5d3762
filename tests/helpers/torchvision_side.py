"""Representations of photos by torchvision's own ResNet with random weights and statistics.

`python -m tests.helpers.torchvision_side NAME PHOTOS.npy OUT.npz` runs in the peers' environment,
without TensorFlow and byol_tf. It reads uint8 photos `[N, H, W, 3]`, and writes `representations`
and each tensor of the state dict as `tensor:<name>`.
"""

import sys

import numpy as np
import torch

from benchmarks.peers.torchvision_import import torchvision


def main(name: str, photos: str, out: str) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.1)
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        for module in model.modules():  # without it the sum grows from block to block
            last = getattr(module, "bn3", getattr(module, "bn2", None))
            if last is not None:
                last.weight.mul_(0.3)
    tensors = {f"tensor:{key}": value.numpy() for key, value in model.state_dict().items()}
    model.fc = torch.nn.Identity()
    images = torch.from_numpy(np.load(photos)).permute(0, 3, 1, 2).float() / 255
    normalize = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        representations = model.eval()(normalize(images))
    np.savez(out, representations=representations.numpy(), **tensors)


if __name__ == "__main__":
    main(*sys.argv[1:])
