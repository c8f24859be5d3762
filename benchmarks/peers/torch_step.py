"""A BYOL step in PyTorch on one fixed batch."""

import torch

from benchmarks.peers import serve
from benchmarks.peers.torch_method import TorchMethod
from benchmarks.peers.torch_networks import torchvision_resnet
from benchmarks.turns import timed


def start(encoder, size, batch, precision, compiled=None):
    torch.manual_seed(0)
    byol = TorchMethod(*torchvision_resnet(encoder), precision=precision, compiled=compiled)
    views = torch.randn(2, batch, 3, size, size).to(byol.device)

    def run(steps):
        for _ in range(steps):
            byol.step(*views).item()

    return timed(run), ("torch", "lightly")


if __name__ == "__main__":
    serve(start)
