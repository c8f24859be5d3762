"""Both views of the BYOL recipe: one by one in two DataLoader workers by torchvision or
albumentations, or in batches by kornia."""

import os

import numpy as np
import torch
from PIL import Image

from benchmarks.peers import serve
from benchmarks.peers.torchvision_import import torchvision
from benchmarks.turns import timed

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WORKERS = 2
_VIEWS = ((1.0, 0.0), (0.1, 0.2))
"""Probabilities of blur and solarization of each view."""


class _Pairs(torch.utils.data.Dataset):
    """Both views of an image; as good as without end."""

    def __init__(self, images, views):
        self._images, self._views = images, views

    def __len__(self):
        return 10**7

    def __getitem__(self, index):
        image = self._images[index % len(self._images)]
        return tuple(view(image) for view in self._views)


def _in_workers(images, views, batch, uncounted):
    """A side that makes views one by one, in workers of a DataLoader."""
    pairs = _Pairs(images, views)
    batches = iter(torch.utils.data.DataLoader(pairs, batch, num_workers=_WORKERS))

    def run(count):
        for _ in range(count):
            next(batches)

    measured = timed(run)

    def side(count):
        run(uncounted)
        # The workers' batches arrive together, so that of a single one the time may be 0.
        return measured(_WORKERS * count) / _WORKERS

    return side


def _torchvision(images, size, batch, kernel, uncounted):
    """Makes both views from PIL images."""
    transforms = torchvision.transforms
    return _in_workers(
        [Image.fromarray(image) for image in images],
        _torchvision_views(transforms, size, kernel, [transforms.ToTensor()]),
        batch,
        uncounted,
    ), ("torch", "torchvision")


def _torchvision_v2(images, size, batch, kernel, uncounted):
    """Makes both views from uint8 tensors, by the second version of the transforms."""
    from torchvision.transforms import v2

    return _in_workers(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        _torchvision_views(v2, size, kernel, [v2.ToDtype(torch.float32, scale=True)]),
        batch,
        uncounted,
    ), ("torch", "torchvision")


def _torchvision_views(transforms, size, kernel, to_float):
    jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
    bicubic = transforms.InterpolationMode.BICUBIC
    return [
        transforms.Compose(
            [
                transforms.RandomResizedCrop(size, (0.08, 1.0), interpolation=bicubic),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([jitter], 0.8),
                transforms.RandomGrayscale(0.2),
                transforms.RandomApply([transforms.GaussianBlur(kernel, (0.1, 2.0))], blur),
                transforms.RandomSolarize(128, solarize),
                *to_float,
                transforms.Normalize(_MEAN, _STD),
            ]
        )
        for blur, solarize in _VIEWS
    ]


def _albumentations(images, size, batch, kernel, uncounted):
    """Makes both views from uint8 arrays, by OpenCV; the last version under the MIT licence."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for its newest version
    import albumentations as album
    import cv2

    cv2.setNumThreads(0)  # the workers are as many as the cores
    pipelines = [
        album.Compose(
            [
                album.RandomResizedCrop((size, size), (0.08, 1.0), interpolation=cv2.INTER_CUBIC),
                album.HorizontalFlip(p=0.5),
                album.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), p=0.8),
                album.ToGray(p=0.2),
                album.GaussianBlur((kernel, kernel), (0.1, 2.0), p=blur),
                album.Solarize((0.5, 0.5), p=solarize),
                album.Normalize(_MEAN, _STD),
                album.ToTensorV2(),
            ]
        )
        for blur, solarize in _VIEWS
    ]
    views = [lambda image, made=made: made(image=image)["image"] for made in pipelines]
    return _in_workers(images, views, batch, uncounted), ("torch", "albumentations")


def _kornia(images, size, batch, kernel, uncounted, compiled=None):
    """Makes both views from batches of uint8 tensors, in this process."""
    import kornia.augmentation as augmentation

    views = [
        torch.nn.Sequential(
            augmentation.RandomResizedCrop((size, size), (0.08, 1.0)),
            augmentation.RandomHorizontalFlip(),
            augmentation.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            augmentation.RandomGrayscale(p=0.2),
            augmentation.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=blur),
            augmentation.RandomSolarize(0.0, 0.0, p=solarize),
            augmentation.Normalize(torch.tensor(_MEAN), torch.tensor(_STD)),
        )
        for blur, solarize in _VIEWS
    ]
    if compiled is not None:
        views = [torch.compile(view, mode=compiled) for view in views]
    pixels = torch.from_numpy(images[:batch])

    def run(count):
        for _ in range(count):
            planes = pixels.permute(0, 3, 1, 2).float() / 255.0
            for view in views:
                view(planes)

    return timed(run), ("torch", "kornia")


_LIBRARIES = {
    "torchvision": _torchvision,
    "torchvision_v2": _torchvision_v2,
    "albumentations": _albumentations,
    "kornia": _kornia,
}


def start(library, images, **settings):
    return _LIBRARIES[library](np.load(images), **settings)


if __name__ == "__main__":
    serve(start)
