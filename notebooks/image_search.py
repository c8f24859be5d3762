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
# # Your photos in, an image search out
#
# A heap of photos without labels; an encoder that learns from them and from nothing else (`configs/few-photos.json`: some thousand photos, two CPU cores); an
# embedding of each photo; and the photos most like one. Install first: [how to](../docs/install.md).
#
# Without a folder of yours it makes a heap of textures, so that you can see it work.

# %% tags=["parameters"]
PHOTOS = None  # the folder of your photos, flat or nested; None: textures are drawn into "heap"
EPOCHS = 24
OVERRIDES = []  # any key of the config, as on the command line: ["--set", "seed=1"]
RUN = "runs/image-search"

# %%
import csv
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from PIL import Image as Pillow
from PIL import ImageOps

from pipelines.sources import textures

os.environ["PYTHONUNBUFFERED"] = "1"  # so that what a command prints is seen at once


def run(*words, picture=None):
    """Runs `python WORDS` and prints what it prints; shows a picture as soon as it is there. What fails ends the notebook here."""
    line = [sys.executable, *map(str, words)]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for text in process.stdout:
            if not text.startswith(
                ("WARNING: All log messages before absl", "I0000 ")
            ):  # TensorFlow's greeting
                print(text, end="")
            if picture is not None and Path(picture).exists():
                display(Image(picture))
                picture = None
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code {process.returncode}")


# %% [markdown]
# ## The heap
#
# What can't be read is left out and told of; nothing in the folder is changed.

# %%
if PHOTOS is None:
    PHOTOS = "heap"
    Path(PHOTOS).mkdir(exist_ok=True)
    for number, pixels in enumerate(textures.draw(0, "unlabelled", np.arange(2000))):
        Pillow.fromarray(pixels).convert("RGB").save(f"{PHOTOS}/{number:04}.png")

# %% [markdown]
# ## Learn from it
#
# The picture shows what the network will see: each photo with the boxes of its two crops, and both views. Both should still show what makes your photos alike, and
# differ in everything else ([choosing views](../docs/views.md)). A heap has no labels, so there is no probe; spread and cosine say that nothing collapsed
# ([reading the curves](../docs/curves.md)). Stopped and run again, the cell goes on.

# %%
words = [
    "--config",
    "few-photos",
    "--set",
    f"data.root={PHOTOS}",
    "--run-dir",
    RUN,
    "--set",
    f"training.epochs={EPOCHS}",
    *OVERRIDES,
]
run("-m", "byol_tf.train", *words, picture=f"{RUN}/figures/views.png")

# %% [markdown]
# ## An embedding of each photo
#
# The same command later takes what is new or has changed.

# %%
embed = ["-m", "byol_tf.embed", "--encoder", RUN, "--images", PHOTOS, "--out", "embedded"]
run(*embed)

# %% [markdown]
# ## Search
#
# Framed: the photo that is asked for, then the most alike of all others, with the cosine. Photos from elsewhere may be asked for too.

# %%
with open("embedded/index.csv", newline="", encoding="utf-8") as file:
    paths = [Path(PHOTOS) / row["path"] for row in csv.DictReader(file)]
queries = [paths[place] for place in np.linspace(0, len(paths) - 1, 6).astype(int)]
run(*embed, "--nearest", *queries)
display(Image("embedded/nearest.png"))

# %% [markdown]
# ## Labels from a few
#
# Write some thirty rows `path,label` into `labels.csv`, paths as in `embedded/index.csv`; `predictions.csv` then guesses all others, the most uncertain first,
# and `uncertain.png` shows which to label next.

# %%
if Path("labels.csv").exists():
    run(*embed, "--few", "labels.csv")
    display(Image("embedded/uncertain.png"))

# %% [markdown]
# ## The heap as a map
#
# Two directions of the embeddings (t-SNE): what lies together is alike for the encoder.

# %%
from sklearn.manifold import TSNE

vectors = np.load("embedded/embeddings.npy")
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
places = np.linspace(0, len(paths) - 1, min(400, len(paths))).astype(int)
flat = TSNE(2, random_state=0, init="pca", perplexity=min(30, len(places) // 4)).fit_transform(
    vectors[places]
)
flat -= flat.min(axis=0)
flat /= flat.max(axis=0)
figure, axis = plt.subplots(figsize=(10, 10))
for (x, y), place in zip(flat, places, strict=True):
    photo = ImageOps.exif_transpose(Pillow.open(paths[place])).convert("RGB")
    photo.thumbnail((64, 64))
    axis.imshow(photo, extent=(x, x + 0.03, y, y + 0.03))
axis.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
axis.axis("off")
plt.show()
