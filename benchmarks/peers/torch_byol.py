"""BYOL in PyTorch of lightly's parts, as lightly's own example puts them together; channels
last."""

import copy
from contextlib import nullcontext

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum

from benchmarks.peers.torchvision_import import torchvision


class TorchBYOL:
    """Online and momentum networks, and a step of SGD with momentum.

    Args:
        encoder: a ResNet of torchvision, by name.
        precision: `float32`, or `mixed_bfloat16` by autocast.
    """

    def __init__(self, encoder: str, precision: str):
        torch.manual_seed(0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        backbone = getattr(torchvision.models, encoder)()
        features = backbone.fc.in_features
        backbone.fc = torch.nn.Identity()
        self.online = torch.nn.Sequential(backbone, BYOLProjectionHead(features, 4096, 256))
        self.online = self.online.to(self.device, memory_format=torch.channels_last)
        self.predictor = BYOLPredictionHead(256, 4096, 256).to(self.device)
        self.momentum = copy.deepcopy(self.online)
        deactivate_requires_grad(self.momentum)
        self.criterion = NegativeCosineSimilarity()
        self.optimizer = torch.optim.SGD(
            [*self.online.parameters(), *self.predictor.parameters()], lr=1e-4, momentum=0.9
        )
        self.low = precision == "mixed_bfloat16"

    def step(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """One step on two views `[N, 3, S, S]`; returns the loss."""
        update_momentum(self.online, self.momentum, 0.99)
        views = [
            view.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            for view in (first, second)
        ]
        with torch.autocast(self.device.type, torch.bfloat16) if self.low else nullcontext():
            predictions = [self.predictor(self.online(view)) for view in views]
            with torch.no_grad():
                targets = [self.momentum(view) for view in views]
            loss = 0.5 * (
                self.criterion(predictions[0], targets[1])
                + self.criterion(predictions[1], targets[0])
            )
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()
