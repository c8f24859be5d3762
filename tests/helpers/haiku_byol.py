"""BYOL of deepmind-research in Haiku with random weights, and checkpoints in its layout.

Names, order, epsilon and the contents of a checkpoint follow `byol/utils/networks.py`,
`byol_experiment.py` and `checkpointing.py` of google-deepmind/deepmind-research.
"""

import collections
from pathlib import Path

import dill
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

BLOCKS = {"ResNet50": (3, 4, 6, 3), "ResNet200": (3, 24, 36, 3)}
HIDDEN, PROJECTION = 24, 12
_BATCH_NORM = {"decay_rate": 0.9, "eps": 1e-5, "create_scale": True, "create_offset": True}
MEAN, STD = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
State = collections.namedtuple(
    "_ByolExperimentState", "online_params target_params online_state target_state opt_state"
)
State.__module__ = "byol.byol_experiment"
MomentumState = collections.namedtuple("ScaleByLarsState", "mu")
MomentumState.__module__ = "byol.utils.optimizers"


class _Torso(hk.Module):
    def __init__(self, blocks, width, namesake):
        super().__init__(name="res_net")
        # As in the published checkpoints: an unused convolution of this name, so that Haiku calls
        # the other one `initial_conv_1`.
        if namesake:
            hk.Conv2D(64, 7, name="initial_conv")
        self.conv = hk.Conv2D(
            round(64 * width), 7, stride=2, with_bias=False, padding="SAME", name="initial_conv"
        )
        self.batch_norm = hk.BatchNorm(name="initial_batchnorm", **_BATCH_NORM)
        self.groups = [
            hk.nets.ResNet.BlockGroup(
                channels=round(256 * 2**group * width),
                num_blocks=number,
                stride=2 if group else 1,
                bn_config=_BATCH_NORM,
                resnet_v2=False,
                bottleneck=True,
                use_projection=True,
                name=f"block_group_{group}",
            )
            for group, number in enumerate(blocks)
        ]

    def __call__(self, images, training):
        x = jax.nn.relu(self.batch_norm(self.conv(images), training))
        x = hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        for group in self.groups:
            x = group(x, training, False)
        return x.mean((1, 2))


class _Head(hk.Module):
    def __call__(self, x, hidden, training):
        x = hk.BatchNorm(**_BATCH_NORM)(hk.Linear(hidden)(x), training)
        return hk.Linear(self.outputs, with_bias=False)(jax.nn.relu(x))

    def __init__(self, outputs, name):
        super().__init__(name=name)
        self.outputs = outputs


def _network(blocks, width, hidden, outputs, namesake, images, training=False):
    """Returns representation, projection and prediction of images `[N, H, W, 3]` in [0, 1]."""
    torso = _Torso(blocks, width, namesake)
    projector, predictor = _Head(outputs, "projector"), _Head(outputs, "predictor")
    classifier = hk.Linear(10, name="classifier")
    for _ in range(2 if training else 1):  # one pass per view
        representation = torso((images - MEAN) / STD, training)
        projection = projector(representation, hidden, training)
        prediction = predictor(projection, hidden, training)
        classifier(representation)
    return representation, projection, prediction


class HaikuByol:
    """The network; its parameters and state are dicts of modules, which are dicts of arrays."""

    def __init__(
        self, encoder="ResNet50", width=1.0, hidden=HIDDEN, outputs=PROJECTION, namesake=False
    ):
        blocks = BLOCKS[encoder]

        def network(images, training=False):
            return _network(blocks, width, hidden, outputs, namesake, images, training)

        self._functions = hk.without_apply_rng(hk.transform_with_state(network))
        self._run = jax.jit(
            lambda parameters, state, images: self._functions.apply(parameters, state, images)[0]
        )

    def shapes(self):
        """Returns (parameters, state) with shapes in place of arrays, without computing any."""
        images = jnp.zeros((1, 32, 32, 3))
        return jax.eval_shape(
            lambda key: self._functions.init(key, images, training=True), jax.random.PRNGKey(0)
        )

    def random_weights(self, seed):
        """Returns (parameters, state) with random values, moving statistics included.

        Their scale keeps representations near 1.
        """
        rng = np.random.default_rng(seed)

        def sample(path, leaf):
            module, name = (key.key for key in path)
            if name == "counter":
                return np.full(leaf.shape, 1000, leaf.dtype)
            if name == "hidden":  # not used in inference: a mix-up with `average` would show
                return np.full(leaf.shape, 99.0, np.float32)
            if name == "w":  # the small gain of heads doesn't amplify rounding errors
                gain = 2.0 if len(leaf.shape) == 4 else 0.5
                values = rng.normal(0.0, np.sqrt(gain / np.prod(leaf.shape[:-1])), leaf.shape)
            elif name == "scale" or "var_ema" in module:
                values = rng.uniform(0.5, 1.5, leaf.shape)
            else:
                values = rng.normal(0.0, 0.1, leaf.shape)
            if name == "scale" and module.endswith("batchnorm_2"):
                values *= 0.1
            return values.astype(np.float32)

        return tuple(jax.tree_util.tree_map_with_path(sample, tree) for tree in self.shapes())

    def outputs(self, parameters, state, images):
        """Returns representations, projections and predictions of images in [0, 1]."""
        return [np.asarray(output) for output in self._run(parameters, state, images)]


def checkpoint(online, target):
    """Returns what `Checkpointer` saves; each network is given as (parameters, state)."""
    return {
        "experiment_state": State(
            hk.data_structures.to_immutable_dict(online[0]),
            hk.data_structures.to_immutable_dict(target[0]),
            online[1],
            target[1],
            [MomentumState({"momentum": {"w": np.zeros((2, 2), np.float32)}}), ()],
        ),
        "step": 312_500,
        "rng": jax.random.PRNGKey(1),
    }


def save(path: Path, tree) -> Path:
    path.write_bytes(dill.dumps(tree, protocol=2))
    return path
