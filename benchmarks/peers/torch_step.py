"""A BYOL step in PyTorch on one fixed batch."""

import torch

from benchmarks.peers import serve
from benchmarks.peers.torch_byol import TorchBYOL
from benchmarks.turns import timed


def start(encoder, size, batch, precision):
    byol = TorchBYOL(encoder, precision)
    views = torch.randn(2, batch, 3, size, size).to(byol.device)

    def run(steps):
        for _ in range(steps):
            byol.step(*views).item()

    return timed(run), ("torch", "lightly")


if __name__ == "__main__":
    serve(start)
