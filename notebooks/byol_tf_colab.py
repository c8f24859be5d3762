# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # BYOL on a TPU, a GPU or a CPU
#
# This notebook installs byol_tf for the machine that it runs on, trains, and shows the result: views, curves, nearest neighbours, probes, and the encoder as
# files. With `IMAGES = "textures"` nothing is downloaded, and two CPU cores are enough.
#
# On Colab choose under *Runtime > Change runtime type*:
#
# | for | hardware accelerator | runtime version |
# |---|---|---|
# | a TPU | v5e-1 TPU | **2026.07**, which has Python 3.12 and gets `tensorflow-tpu` 2.19.1; the default has 3.13 and gets 2.20.0. Neither was tried |
# | a GPU | T4 or better | any |
# | a CPU | none | any |

# %% tags=["parameters"]
IMAGES = "textures"  # built-in; or "stl10": photos, 2.6 GB to download, for a GPU or a TPU
EPOCHS = 24
OVERRIDES = []  # any key of the config, as on the command line: ["--set", "seed=1"]
SOURCE = None  # where byol_tf comes from, see "Install"; None: a clone in byol_tf/, or a byol_tf-*.whl, next to this notebook
RUN = "runs/notebook"

# %% [markdown]
# ## This machine
#
# Commands run in processes of their own: a TPU serves one process at a time, and TensorFlow takes nearly all of a GPU's memory. So the notebook itself, where it
# uses TensorFlow further below, keeps to the CPU.

# %%
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from IPython.display import Image, display

if (
    "TPU_NAME" in os.environ
    or "COLAB_TPU_ADDR" in os.environ
    or Path("/dev/accel0").exists()
    or Path("/dev/vfio/0").exists()
):
    MACHINE = "tpu"
elif (
    shutil.which("nvidia-smi")
    and subprocess.run(["nvidia-smi"], capture_output=True).returncode == 0
):
    MACHINE = "gpu"
else:
    MACHINE = "cpu"
print(f"{MACHINE}, Python {sys.version.split()[0]}")

os.environ["PYTHONUNBUFFERED"] = "1"  # so that what a command prints is seen at once


def run(*words, picture=None):
    """Runs `python WORDS` and prints its output; shows a picture as soon as it is written. A failure ends the notebook."""
    line = [sys.executable, *map(str, words)]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for text in process.stdout:
            print(text, end="")
            if picture is not None and Path(picture).exists():
                display(Image(picture))
                picture = None
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code {process.returncode}")


# %% [markdown]
# ## Install
#
# byol_tf is on no package registry, and its repository has no public address yet. So, one of:
#
# | you have | do |
# |---|---|
# | a repository that this machine can reach | `SOURCE = "git+https://..."` above |
# | a wheel: in a clone elsewhere, `pip wheel --no-deps .` makes `byol_tf-*.whl` | upload it (*Files*, at the left) |
# | a clone on this machine, or on a mounted drive | put it here as `byol_tf`, or write its path to `SOURCE` |
#
# It is installed with the extra for this machine: `cpu`, `gpu` (CUDA from NVIDIA's wheels) or `tpu` (`tensorflow-tpu`). If
# this cell installed something, choose *Runtime > Restart session* and run all cells again: the session may have loaded other versions of the same packages.


# %%
def requirement(source):
    """Returns what pip installs: an address, a wheel, or a folder with setup.cfg. Anything else ends the notebook."""
    if source and "://" in source:
        return f"byol-tf[{MACHINE}] @ {source}"
    wheels = sorted(
        Path().glob("byol_tf-*.whl"), key=lambda wheel: wheel.stat().st_mtime, reverse=True
    )
    for path in map(Path, [source] if source else ["byol_tf", *wheels]):
        if (path / "setup.cfg").is_file() or (path.suffix == ".whl" and path.is_file()):
            return f"{path.resolve()}[{MACHINE}]"  # a path with a slash: pip would look for a bare name on a registry
    looked = f"SOURCE = {source!r} is" if source else f"in {Path.cwd()} there is"
    raise SystemExit(
        f"byol_tf isn't installed, and {looked} neither a clone's folder (with setup.cfg) nor a byol_tf-*.whl. "
        'Upload a wheel, or set SOURCE to "git+https://..." or to a path: see the table above. Then run this cell again'
    )


found = importlib.util.find_spec("byol_tf")
if (
    found is None or found.origin is None
):  # without a file of its own it is only a folder of that name, such as a clone
    run("-m", "pip", "install", "--quiet", requirement(SOURCE))
    importlib.invalidate_caches()
else:
    print("byol_tf is there")

# %% [markdown]
# ## Does the TPU answer?
#
# Skipped where there is none. If it fails:
#
# | what you see | do |
# |---|---|
# | `No OpKernel was registered to support Op 'ConfigureDistributedTPU'` | the plain `tensorflow` package lies over `tensorflow-tpu`: `pip uninstall -y tensorflow tensorflow-cpu tensorflow-tpu`, the install cell again, restart the session |
# | `no TPU answers as "local"` | another notebook holds it: *Runtime > Manage sessions*, end the others; restart the session |
# | nothing, for minutes | *Runtime > Disconnect and delete runtime*, and start again |
# | none of it helps | take a GPU runtime: everything below is the same |
#
# This was written from what the packages declare, and not tried on a TPU yet.

# %%
if MACHINE == "tpu":
    run(
        "-c",
        "from byol_tf.devices import build_strategy; print('TPU cores:', build_strategy('tpu').num_replicas_in_sync)",
    )
else:
    print(f"no TPU here: going on with the {MACHINE}")

# %% [markdown]
# ## Train
#
# The plan comes first, then the views as soon as they are drawn: each image with the boxes of its two crops, and both views below. That is what the network will
# see: what you can't recognise in them, it can't learn. After the last epoch a table compares the untrained encoder with the trained one. If you stop the cell and
# run it again, it resumes where it was.

# %%
config = {"textures": "demo", "stl10": "stl10"}[IMAGES]
strategy = {"tpu": "tpu", "gpu": "auto", "cpu": "cpu"}[
    MACHINE
]  # all GPUs; a TPU that doesn't answer is an error
words = [
    "--config",
    config,
    "--run-dir",
    RUN,
    "--set",
    f"training.epochs={EPOCHS}",
    "--set",
    f"devices.strategy={strategy}",
    *OVERRIDES,
]
run("-m", "byol_tf.train", *words, picture=f"{RUN}/figures/views.png")

# %% [markdown]
# ## Curves
#
# Accuracy of a linear probe and of nearest neighbours on the frozen encoder, with lines for the untrained encoder and for chance; the loss, which says little by
# itself; the standard deviation of the projections, where 0 is a collapse; and the schedules of learning rate and tau.

# %%
display(Image(f"{RUN}/figures/curves.png"))

# %% [markdown]
# ## Nearest neighbours
#
# Test images that the encoder never saw: at the left the query, then the nearest others by cosine; with the untrained encoder above, with the trained one below.

# %%
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# For the import alone, which would take the TPU from the commands below.
os.environ["TPU_LOAD_LIBRARY"] = "0"
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

del os.environ["TPU_LOAD_LIBRARY"]
tf.config.set_visible_devices([], "GPU")  # whose memory the commands below need

from byol_tf import inference_model, load_config, open_source
from byol_tf.models.from_config import build_config_encoder
from byol_tf.runs.sources import source_options

config = load_config(f"{RUN}/config.json")
test = open_source(**source_options(config)).test
images = np.stack([test[index] for index in range(500)])
keras.utils.set_random_seed(config.seed)
untrained = inference_model(
    build_config_encoder(config), config.views.size, config.views.mean, config.views.std
)
saved = tf.saved_model.load(f"{RUN}/export/encoder/1")

QUERIES, SHOWN = 4, 8
figure, axes = plt.subplots(2 * QUERIES, SHOWN, figsize=(SHOWN, 2.1 * QUERIES))
for axis in axes.flat:
    axis.axis("off")
for part, (name, encoder) in enumerate((("untrained", untrained), ("trained", saved.serve))):
    vectors = np.concatenate(
        [
            np.asarray(encoder(tf.constant(images[start : start + 100])))
            for start in range(0, len(images), 100)
        ]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in range(QUERIES):
        order = np.argsort(-vectors @ vectors[query])[:SHOWN]
        for place, index in enumerate([query, *order[order != query]][:SHOWN]):
            right = test.labels[index] == test.labels[query]
            axes[2 * query + part, place].imshow(images[index])
            axes[2 * query + part, place].set_title(
                name if place == 0 else "same class" if right else "", fontsize=7
            )
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Probes
#
# Logistic regression on the frozen features, whose regularisation is chosen on held-out training labels, and a vote of the nearest training images.

# %%
run("-m", "byol_tf.evaluate", "linear", "--fast", "--run", RUN)
run("-m", "byol_tf.evaluate", "knn", "--run", RUN)

# %% [markdown]
# ## Take it away
#
# The run has exported the encoder already; this command does it again, from the newest checkpoint. Resize, crop and normalisation are inside, and neither file needs
# byol_tf. Both files give the same representations:

# %%
run("-m", "byol_tf.export", "--run", RUN)
saved = tf.saved_model.load(f"{RUN}/export/encoder/1")  # the new one
from_saved_model = saved.serve(tf.constant(images[:16])).numpy()
from_keras = keras.models.load_model(f"{RUN}/export/encoder.keras")(images[:16]).numpy()
print(
    f"representations: {from_keras.shape}, largest difference of the two: {np.abs(from_saved_model - from_keras).max():.1e}"
)
archive = shutil.make_archive("encoder", "zip", f"{RUN}/export")
print(f"to download: {Path(archive).name}, {Path(archive).stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# Next: [your own photos](../docs/photos.md), [an image search on them](image_search.ipynb), [reading the curves](../docs/curves.md).
