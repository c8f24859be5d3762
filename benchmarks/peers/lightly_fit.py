"""lightly's BYOL end to end: its transforms in a DataLoader with two workers, its parts, a training
loop."""

import os
import time

import numpy as np
import torch
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from PIL import Image

from benchmarks.peers import serve
from benchmarks.peers.torch_method import TorchMethod
from benchmarks.peers.torch_networks import torchvision_resnet


class _Pictures(torch.utils.data.Dataset):
    """Both views of noise held as PIL images."""

    def __init__(self, count, size, transform):
        self._transform = transform
        pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        self._images = [Image.fromarray(image) for image in pixels]

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return self._transform(self._images[index])


def _endless(loader):
    while True:
        yield from loader


def start(encoder, size, batch, precision, uncounted, compiled=None):
    torch.manual_seed(0)
    transform = BYOLTransform(
        BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size)
    )
    # Long enough that no new epoch, at which workers begin with nothing ready, starts within a turn
    # of usual length.
    pictures = _Pictures(64 * batch, size, transform)
    loader = torch.utils.data.DataLoader(
        pictures,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=os.cpu_count(),
        persistent_workers=True,
    )
    batches = _endless(loader)
    byol = TorchMethod(*torchvision_resnet(encoder), precision=precision, compiled=compiled)

    def side(steps):
        for step in range(uncounted + steps):
            if step == uncounted:
                began = time.perf_counter()
            byol.step(*next(batches)).item()
        return time.perf_counter() - began

    return side, ("torch", "lightly", "torchvision")


if __name__ == "__main__":
    serve(start)
