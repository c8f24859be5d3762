"""Both views of the BYOL recipe by torchvision from PIL images in two DataLoader workers, or by
kornia in batches."""

import numpy as np
import torch
from PIL import Image

from benchmarks.peers import serve
from benchmarks.peers.torchvision_import import torchvision
from benchmarks.turns import timed

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VIEWS = ((1.0, 0.0), (0.1, 0.2))
"""Probabilities of blur and solarization of each view."""


class _Pairs(torch.utils.data.Dataset):
    """Both views of an image, made by torchvision; as good as without end."""

    def __init__(self, images, size, kernel):
        transforms = torchvision.transforms
        jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
        bicubic = transforms.InterpolationMode.BICUBIC
        self._views = [
            transforms.Compose(
                [
                    transforms.RandomResizedCrop(size, (0.08, 1.0), interpolation=bicubic),
                    transforms.RandomHorizontalFlip(),
                    transforms.RandomApply([jitter], 0.8),
                    transforms.RandomGrayscale(0.2),
                    transforms.RandomApply([transforms.GaussianBlur(kernel, (0.1, 2.0))], blur),
                    transforms.RandomSolarize(128, solarize),
                    transforms.ToTensor(),
                    transforms.Normalize(_MEAN, _STD),
                ]
            )
            for blur, solarize in _VIEWS
        ]
        self._images = [Image.fromarray(image) for image in images]

    def __len__(self):
        return 10**7

    def __getitem__(self, index):
        image = self._images[index % len(self._images)]
        return tuple(view(image) for view in self._views)


def _torchvision(images, size, batch, kernel, uncounted):
    batches = iter(torch.utils.data.DataLoader(_Pairs(images, size, kernel), batch, num_workers=2))

    def run(count):
        for _ in range(count):
            next(batches)

    measured = timed(run)

    def side(count):
        run(uncounted)
        return measured(count)

    return side, ("torch", "torchvision")


def _kornia(images, size, batch, kernel, uncounted):
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
    pixels = torch.from_numpy(images[:batch])

    def run(count):
        for _ in range(count):
            planes = pixels.permute(0, 3, 1, 2).float() / 255.0
            for view in views:
                view(planes)

    return timed(run), ("torch", "kornia")


def start(library, images, **settings):
    return {"torchvision": _torchvision, "kornia": _kornia}[library](np.load(images), **settings)


if __name__ == "__main__":
    serve(start)
