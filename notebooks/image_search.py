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
# embedding of each photo; and the photos most like one. Install first, as in [README](../README.md#install).
#
# Without a folder of yours it makes a heap of textures, so that you can see it work.

# %% tags=["parameters"]
PHOTOS = None  # the folder of your photos, flat or nested; None: textures are drawn into "heap"
EPOCHS = 24
OVERRIDES = []  # any key of the config, as on the command line: ["--set", "seed=1"]
RUN = "runs/image-search"

# %%
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from PIL import Image as Pillow

from pipelines.sources import textures
from pipelines.sources.decoding import UnreadableImage, decode

os.environ["PYTHONUNBUFFERED"] = "1"  # so that what a command prints is seen at once


def run(*words, picture=None):
    """Runs `python WORDS` and prints what it prints; shows a picture as soon as it is there. What fails ends the notebook here."""
    line = [sys.executable, *map(str, words)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for text in process.stdout:
            if not text.startswith(("WARNING: All log messages before absl", "I0000 ")):  # TensorFlow's greeting
                print(text, end="")
            if picture is not None and Path(picture).exists():
                display(Image(picture))
                picture = None
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code {process.returncode}")


# %% [markdown]
# ## The heap
#
# What can't be read is left out and told of; nothing in the folder is changed. A photo that was taken upright is shown upright (EXIF).

# %%
if PHOTOS is None:
    PHOTOS = "heap"
    Path(PHOTOS).mkdir(exist_ok=True)
    for number, pixels in enumerate(textures.draw(0, "unlabelled", np.arange(2000))):
        Pillow.fromarray(pixels).convert("RGB").save(f"{PHOTOS}/{number:04}.png")

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
paths, photos = [], []
for path in sorted(path for path in Path(PHOTOS).rglob("*") if path.suffix.lower() in SUFFIXES):
    try:
        with path.open("rb") as file:
            pixels, _ = decode(file)
    except UnreadableImage as error:
        print(f"left out: {path}: {error}")
        continue
    paths.append(path)
    photos.append(Pillow.fromarray(pixels))
    photos[-1].thumbnail((256, 256))  # enough for the encoder and for what is shown here
print(f"{len(photos):,} photos")


def sheet(rows, titles):
    """Shows rows of photos, by their places in the heap, with titles above them."""
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=(1.5 * len(rows[0]), 1.7 * len(rows)), squeeze=False)
    for places, texts, line in zip(rows, titles, axes, strict=True):
        for place, text, axis in zip(places, texts, line, strict=True):
            axis.imshow(photos[place])
            axis.set_title(text, fontsize=7)
            axis.axis("off")
    figure.tight_layout()
    plt.show()


some = np.linspace(0, len(photos) - 1, 8).astype(int)
sheet([some], [[paths[place].name for place in some]])

# %% [markdown]
# ## Learn from it
#
# The picture shows what the network will see: each photo with the boxes of its two crops, and both views. Both should still show what makes your photos alike, and
# differ in everything else ([choosing views](../docs/views.md)). A heap has no labels, so there is no probe; spread and cosine say that nothing collapsed
# ([reading the curves](../docs/curves.md)). Stopped and run again, the cell goes on.

# %%
words = ["--config", "few-photos", "--set", f"data.root={PHOTOS}", "--run-dir", RUN, "--set", f"training.epochs={EPOCHS}", *OVERRIDES]
run("-m", "byol_tf.train", *words, picture=f"{RUN}/figures/views.png")

# %% [markdown]
# ## An embedding of each photo
#
# The exported encoder takes uint8 images of any size, one size at a time. Vectors are scaled to length 1, so that a product of two is their cosine.

# %%
import tensorflow as tf

encoder = tf.saved_model.load(f"{RUN}/export/encoder/1")
vectors = np.concatenate([encoder.serve(tf.constant(np.asarray(photo)[None])).numpy() for photo in photos])
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
np.savez("embeddings.npz", embeddings=vectors, paths=[str(path) for path in paths])
print(f"embeddings.npz: {vectors.shape[0]:,} photos, {vectors.shape[1]} numbers each")

# %% [markdown]
# ## Search
#
# In the first column the photo that is asked for, then the most alike of all others, with the cosine.


# %%
def most_alike(vector, count, but=None):
    """(places in the heap, cosines) of the photos nearest to a vector of length 1, best first; without the one at the place `but`."""
    cosines = vectors @ vector
    if but is not None:
        cosines[but] = -np.inf
    order = np.argsort(-cosines)[:count]
    return order, cosines[order]


rows, titles = [], []
for query in np.linspace(0, len(photos) - 1, 6).astype(int):
    found, cosines = most_alike(vectors[query], 7, but=query)
    rows.append([query, *found])
    titles.append([f"{paths[query].name}:", *(f"{cosine:.3f}" for cosine in cosines)])
sheet(rows, titles)

# %% [markdown]
# With a photo from elsewhere: `decode` it, `encoder.serve` it, and ask `most_alike`.

# %%
with paths[-1].open("rb") as file:  # put your photo's path here
    pixels, _ = decode(file)
vector = encoder.serve(tf.constant(pixels[None])).numpy()[0]
found, cosines = most_alike(vector / np.linalg.norm(vector), 5)
print(*(f"{cosine:.3f}  {paths[place]}" for place, cosine in zip(found, cosines, strict=True)), sep="\n")

# %% [markdown]
# ## The heap as a map
#
# Two directions of the embeddings (t-SNE): what lies together is alike for the encoder.

# %%
from sklearn.manifold import TSNE

places = np.linspace(0, len(photos) - 1, min(400, len(photos))).astype(int)
flat = TSNE(2, random_state=0, init="pca", perplexity=min(30, len(places) // 4)).fit_transform(vectors[places])
flat -= flat.min(axis=0)
flat /= flat.max(axis=0)
figure, axis = plt.subplots(figsize=(10, 10))
for (x, y), place in zip(flat, places, strict=True):
    axis.imshow(photos[place], extent=(x, x + 0.03, y, y + 0.03))
axis.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
axis.axis("off")
plt.show()
