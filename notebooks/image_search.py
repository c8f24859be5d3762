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
# From a folder of photos without labels to a search for similar ones: train an encoder on the photos alone (the recipe `few-photos`: a few thousand photos, two CPU
# cores), embed each photo, and look for those most similar to a given one. [Install](../docs/install.md) byol_tf first.
#
# Without a folder of yours the notebook makes one of built-in textures.

# %% tags=["parameters"]
PHOTOS = (
    None  # the folder of your photos, flat or nested; None: built-in textures, written to "heap"
)
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
# ## The photos
#
# Files that can't be read are skipped and named; nothing in the folder is changed.

# %%
if PHOTOS is None:
    PHOTOS = "heap"
    Path(PHOTOS).mkdir(exist_ok=True)
    for number, pixels in enumerate(textures.draw(0, "unlabelled", np.arange(2000))):
        Pillow.fromarray(pixels).convert("RGB").save(f"{PHOTOS}/{number:04}.png")

# %% [markdown]
# ## Train
#
# The picture shows what the network will see: each photo with the boxes of its two crops, and both views. Both should still show what makes your photos similar, and
# differ in everything else ([choosing views](../docs/views.md)). Without labels there is no probe; the spread of the projections shows that nothing collapsed
# ([reading the curves](../docs/curves.md)). If you stop the cell and run it again, it resumes where it was.

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
# The same command, run again later, embeds only the photos that are new or have changed.

# %%
embed = ["-m", "byol_tf.embed", "--encoder", RUN, "--images", PHOTOS, "--out", "embedded"]
run(*embed)

# %% [markdown]
# ## Search
#
# In a frame the query, then the most similar of all other photos, with their cosines. A query may also be a photo from elsewhere.

# %%
with open("embedded/index.csv", newline="", encoding="utf-8") as file:
    paths = [Path(PHOTOS) / row["path"] for row in csv.DictReader(file)]
queries = [paths[place] for place in np.linspace(0, len(paths) - 1, 6).astype(int)]
run(*embed, "--nearest", *queries)
display(Image("embedded/nearest.png"))

# %% [markdown]
# ## Labels from a few
#
# Write about thirty rows `path,label` into `labels.csv`, with paths as in `embedded/index.csv`. `predictions.csv` then has a label for each other photo, the least
# certain first, and `uncertain.png` shows which to label next.

# %%
if Path("labels.csv").exists():
    run(*embed, "--few", "labels.csv")
    display(Image("embedded/uncertain.png"))

# %% [markdown]
# ## A map of the photos
#
# Two dimensions by t-SNE: photos that are close together are similar for the encoder.

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
