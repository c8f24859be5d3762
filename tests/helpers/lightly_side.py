"""A step of lightly's BYOL or SimCLR from weights of byol_tf, and how far it ends from ours.

`python -m tests.helpers.lightly_side NETWORK CONFIG.json STEP.npz` runs in the peers' environment.
STEP.npz has `views` `[2, N, S, S, 3]`, `rate` and `tau`, and weights as `benchmarks.learn.ours`
names them, with `before/`, `after/` or `target/` in front. Prints a JSON object: the loss, and of
the online and of the momentum network's weights after the step the largest difference from ours,
relative to the largest change of a weight of that layer.
"""

import json
import sys

import numpy as np
import torch

from benchmarks.peers.torch_learn import method_of
from benchmarks.peers.torch_networks import TURNED, load_weights


def main(network: str, config: str, step: str) -> None:
    with open(config) as file:
        config = json.load(file)
    arrays = dict(np.load(step))

    def method(part):
        made = method_of(config, network)
        parameters = made.optimizer.param_groups[0]["params"]
        made.optimizer = torch.optim.SGD(parameters, lr=float(arrays["rate"]))
        prefix = f"{part}/"
        weights = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        load_weights(made, weights, network)
        return made

    before, after, trained = method("before"), method("after"), method("before")
    views = arrays["views"][:, :, ::-1, ::-1] if network in TURNED else arrays["views"]
    views = torch.from_numpy(views.transpose(0, 1, 4, 2, 3).copy())
    loss = trained.step(*views, tau=float(arrays["tau"])).item()
    result = {"loss": loss, "online": difference(before.online, after.online, trained.online)}
    if trained.predictor is not None:
        result["predictor"] = difference(before.predictor, after.predictor, trained.predictor)
        target = method("target").online
        result["momentum"] = difference(before.online, target, trained.momentum)
    print(json.dumps(result))


def difference(before: torch.nn.Module, ours: torch.nn.Module, theirs: torch.nn.Module) -> float:
    """The largest, over the tensors, of |ours - theirs| / |ours - before|."""
    found = []
    for (name, start), our, their in zip(
        before.state_dict().items(),
        ours.state_dict().values(),
        theirs.state_dict().values(),
        strict=True,
    ):
        # PyTorch averages the unbiased variance, Keras the biased one. A bias before a batch
        # normalisation has no gradient but rounding errors.
        if not name.endswith(("running_var", "num_batches_tracked", "layers.0.bias")):
            change = (our - start).abs().max()
            found.append(((our - their).abs().max() / change).item())
    return max(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
