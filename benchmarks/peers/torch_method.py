"""BYOL and SimCLR in PyTorch of lightly's parts, put together as in lightly's own examples;
channels last."""

import copy
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules.heads import ProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum


def mlp_head(features: int, hidden: int, output: int) -> ProjectionHead:
    """lightly's head, with the biases of byol_tf's: in the hidden layer alone."""
    return ProjectionHead(
        [
            (features, hidden, torch.nn.BatchNorm1d(hidden), torch.nn.ReLU(), True),
            (hidden, output, None, None, False),
        ]
    )


class TorchMethod:
    """Online network, for BYOL a predictor and a momentum network, and a training step.

    Args:
        encoder: from images `[N, 3, H, W]` to representations.
        features: width of the representations.
        hidden: width of the heads' hidden layers.
        output: width of projections and predictions.
        temperature: of SimCLR; None for BYOL.
        optimizer: called with the parameters. Default: SGD with momentum, as in lightly's example.
        precision: `float32`, or `mixed_bfloat16` by autocast.
        weight: multiplies the loss, which at 1 is that of byol_tf less a constant.
        compiled: mode of `torch.compile` for forward and backward pass; None to run eagerly.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        features: int,
        hidden: int = 4096,
        output: int = 256,
        temperature: float | None = None,
        optimizer: Callable[[Iterable], torch.optim.Optimizer] | None = None,
        precision: str = "float32",
        weight: float = 1.0,
        compiled: str | None = None,
    ):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.encoder, self.projector = encoder, mlp_head(features, hidden, output)
        self.online = torch.nn.Sequential(self.encoder, self.projector)
        self.online = self.online.to(self.device, memory_format=torch.channels_last)
        networks = [self.online]
        self.predictor = self.momentum = None
        if temperature is None:
            self.predictor = mlp_head(output, hidden, output).to(self.device)
            networks.append(self.predictor)
            self.momentum = copy.deepcopy(self.online)
            deactivate_requires_grad(self.momentum)
            self._criterion, self._scale = NegativeCosineSimilarity(), 2.0 * weight
        else:
            self._criterion, self._scale = NTXentLoss(temperature), 4.0 * temperature * weight
        parameters = [p for network in networks for p in network.parameters()]
        if optimizer is None:
            self.optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, fused=True)
        else:
            self.optimizer = optimizer(parameters)
        self._low = precision == "mixed_bfloat16"
        self._compiled_loss = (
            torch.compile(self.loss, mode=compiled) if compiled is not None else self.loss
        )

    def loss(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The loss of two views `[N, 3, S, S]`."""
        with torch.autocast(self.device.type, torch.bfloat16) if self._low else nullcontext():
            projections = [self.online(view) for view in (first, second)]
            if self.momentum is None:
                return self._scale * self._criterion(*projections)
            predictions = [self.predictor(projection) for projection in projections]
            with torch.no_grad():
                targets = [self.momentum(view) for view in (first, second)]
            return self._scale * (
                self._criterion(predictions[0], targets[1])
                + self._criterion(predictions[1], targets[0])
            )

    def step(self, first: torch.Tensor, second: torch.Tensor, tau: float = 0.99) -> torch.Tensor:
        """One step on two views `[N, 3, S, S]`; returns the loss."""
        views = [
            view.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            for view in (first, second)
        ]
        loss = self._compiled_loss(*views)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.momentum is not None:
            update_momentum(self.online, self.momentum, tau)
        return loss.detach()
