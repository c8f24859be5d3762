"""lightly's BYOL or SimCLR, trained as a config of byol_tf says; see `benchmarks.learn`."""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from PIL import Image

from benchmarks.peers.torch_method import TorchMethod
from benchmarks.peers.torch_networks import NETWORKS, TURNED, load_weights

_FEATURE_BATCH = 500


class _Photos(torch.utils.data.Dataset):
    """Both views of each photo."""

    def __init__(self, photos, transform):
        self._photos, self._transform = [Image.fromarray(photo) for photo in photos], transform

    def __len__(self):
        return len(self._photos)

    def __getitem__(self, index):
        return self._transform(self._photos[index])


def view_arguments(views: dict, name: str) -> dict:
    """lightly's arguments of a view of a config."""
    policy = views[name]
    return {
        "input_size": views["size"],
        "min_scale": policy["crop_area"][0],
        "hf_prob": policy["flip_probability"],
        "cj_prob": policy["jitter_probability"],
        "cj_bright": policy["brightness"],
        "cj_contrast": policy["contrast"],
        "cj_sat": policy["saturation"],
        "cj_hue": policy["hue"],
        "random_gray_scale": policy["grayscale_probability"],
        "gaussian_blur": policy["blur_probability"],
        "sigmas": policy["blur_sigma"],
        "solarization_prob": policy["solarize_probability"],
        "normalize": {"mean": views["mean"], "std": views["std"]},
    }


def method_of(config: dict, network: str) -> TorchMethod:
    """The method of a config."""
    encoder, features = NETWORKS[network]()
    objective, optimizer = config["objective"], config["optimizer"]
    return TorchMethod(
        encoder,
        features,
        config["projector"]["hidden_size"],
        config["projector"]["output_size"],
        objective["temperature"],
        lambda parameters: torch.optim.Adam(
            parameters, betas=(optimizer["momentum"], 0.999), eps=1e-7, fused=True
        ),  # eps of Keras
        config["devices"]["precision"],
        objective["weight"],
    )


def cpu_seconds() -> float:
    """Processor time of this process and of the DataLoader's workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in user and in kernel mode
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


@torch.no_grad()
def features_of(encoder: torch.nn.Module, photos: np.ndarray, mean, std) -> np.ndarray:
    """Representations of uint8 photos `[N, S, S, 3]` by the frozen encoder."""
    encoder.eval()
    blocks = []
    for first in range(0, len(photos), _FEATURE_BATCH):
        pixels = torch.from_numpy(photos[first : first + _FEATURE_BATCH].copy()).float() / 255.0
        pixels = (pixels - torch.tensor(mean)) / torch.tensor(std)
        blocks.append(encoder(pixels.permute(0, 3, 1, 2)).cpu().numpy())
    encoder.train()
    return np.concatenate(blocks)


def train(config: str, network: str, photos: str, out: str, checkpoints: list, threads: int):
    """Trains; writes features at each of the checkpoints, which are numbers of epochs.

    Args:
        config: the config's file.
        network: the encoder, one of `NETWORKS`.
        photos: file of the arrays `unlabelled`, `train` and `test`.
        out: folder of `start.npz`, as our side writes it into its own; features go to
            `peer-EPOCH.npz`.
        checkpoints: epochs.
        threads: of PyTorch; with more than one also workers of the DataLoader.
    """
    torch.set_num_threads(threads)
    with open(config) as file:
        config = json.load(file)
    torch.manual_seed(config["seed"])
    arrays, start, out = np.load(photos), np.load(Path(out) / "start.npz"), Path(out)
    photos = {name: arrays[name] for name in ("unlabelled", "train", "test")}
    if network in TURNED:
        photos = {name: array[:, ::-1, ::-1] for name, array in photos.items()}
    views, batch = config["views"], config["training"]["batch_size"]
    transform = BYOLTransform(
        BYOLView1Transform(**view_arguments(views, "first")),
        BYOLView2Transform(**view_arguments(views, "second")),
    )
    loader = torch.utils.data.DataLoader(
        _Photos(photos["unlabelled"], transform),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=threads if threads > 1 else 0,
        persistent_workers=threads > 1,
    )
    method = method_of(config, network)
    load_weights(method, start, network)
    seconds, cpu, step = 0.0, 0.0, 0

    def write(epoch):
        features = {
            name: features_of(method.encoder, photos[name], views["mean"], views["std"])
            for name in ("train", "test")
        }
        np.savez(
            out / f"peer-{epoch}.npz",
            **features,
            images=step * batch,
            seconds=seconds,
            cpu_seconds=cpu,
        )

    write(0)
    for epoch in range(1, config["training"]["epochs"] + 1):
        began, cpu_began = time.perf_counter(), cpu_seconds()
        for first, second in loader:
            method.optimizer.param_groups[0]["lr"] = float(start["rates"][step])
            loss = method.step(first, second, float(start["taus"][step])).item()
            step += 1
        seconds += time.perf_counter() - began
        cpu += cpu_seconds() - cpu_began
        print(f"peer: epoch {epoch}, loss {loss:.3f}, {seconds:.0f} s", flush=True)
        if epoch in checkpoints:
            write(epoch)


if __name__ == "__main__":
    train(**json.loads(sys.argv[1]))
