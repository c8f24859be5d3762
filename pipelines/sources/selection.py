"""Selection of the images to pre-train on: which splits, and a sample of them."""

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
