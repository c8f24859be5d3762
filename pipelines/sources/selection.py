"""Selection of images: which splits to pre-train on and a sample of them, and balanced samples."""

from collections.abc import Mapping

import numpy as np

from pipelines.sources.base import SPLITS, Request, SourceError, generator


def select_pretrain(
    request: Request, counts: Mapping[str, int], unlabelled_from: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Selects the splits to pre-train on and samples `pretrain_images` of their images.

    Args:
        request: its `pretrain`, `pretrain_images` and `seed`.
        counts: number of images in each split of the source.
        unlabelled_from: the splits that make up the unlabelled images.

    Returns:
        For each split to pre-train on, int64 indices into the split, ascending.

    Raises:
        SourceError: the source hasn't that split, or fewer than 2 images.
    """
    splits = _pretrain_splits(request, counts, unlabelled_from)
    total = sum(counts[split] for split in splits)
    if total < 2:
        raise SourceError(
            f"{request.source}: {total} image(s) to pre-train on; at least 2 are needed"
        )
    selected = np.arange(total)
    if request.pretrain_images is not None and request.pretrain_images < total:
        # The beginning of one permutation, so that a larger sample contains every smaller one.
        order = generator(request.seed, "pretrain_images").permutation(total)
        selected = np.sort(order[: request.pretrain_images])
    if len(selected) < 2:
        raise SourceError(
            f"data.pretrain_images: expected 2 or more, received {request.pretrain_images}"
        )
    pretrain, start = {}, 0
    for split in splits:
        end = start + counts[split]
        indices = selected[(selected >= start) & (selected < end)] - start
        if len(indices):
            pretrain[split] = indices
        start = end
    return pretrain


def used_counts(counts: Mapping[str, int], pretrain: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Returns the number of images in use of each split; only pre-training uses unlabelled ones."""
    used = {split: counts[split] for split in ("train", "test") if split in counts}
    if "unlabelled" in pretrain:
        used["unlabelled"] = len(pretrain["unlabelled"])
    return used


def selection_notes(request: Request, pretrain: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Returns a line where `pretrain_images` asks for more than there are."""
    count = sum(map(len, pretrain.values()))
    if request.pretrain_images is not None and request.pretrain_images > count:
        return (f"data.pretrain_images asks for {request.pretrain_images:,}; there are {count:,}",)
    return ()


def balanced_indices(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Samples images with class counts as equal as possible.

    A larger sample of the same seed contains every smaller one.

    Args:
        labels: int `[n]`.
        count: size of the sample; n or more gives all.
        seed: of the sample.

    Returns:
        int64 `[min(count, n)]`, ascending.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    classes, class_index = np.unique(labels[order], return_inverse=True)
    by_class = np.argsort(class_index, kind="stable")
    starts = np.searchsorted(class_index[by_class], np.arange(len(classes)))
    rank = np.empty(len(labels), np.int64)  # of each image within its class
    rank[by_class] = np.arange(len(labels)) - starts[class_index[by_class]]
    # Images of one rank are taken in a random order of classes: a remainder favours none.
    class_order = rng.permutation(len(classes))
    sample = order[np.lexsort((class_order[class_index], rank))[:count]]
    return np.sort(sample).astype(np.int64)


def _pretrain_splits(
    request: Request, counts: Mapping[str, int], unlabelled_from: tuple[str, ...]
) -> list[str]:
    choices: dict[str, set[str]] = {}
    if set(unlabelled_from) <= set(counts):
        choices["unlabelled"] = set(unlabelled_from)
    if "train" in counts:
        choices["train"] = {"train"}
    if len(choices) == 2:
        choices["train+unlabelled"] = choices["train"] | choices["unlabelled"]
    if not choices:
        raise SourceError(
            f"{request.source} has nothing to pre-train on here; it has {', '.join(counts)}"
        )
    choice = request.pretrain or next(iter(choices))
    if choice not in choices:
        allowed = " or ".join(f'"{name}"' for name in choices)
        raise SourceError(
            f"data.pretrain: expected {allowed}, which is what {request.source} has here; received "
            f'"{choice}"'
        )
    return [split for split in SPLITS if split in choices[choice]]
