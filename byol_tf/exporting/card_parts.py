"""What all model cards have: the lines that Hugging Face's hub reads, what goes in and comes out, the files. Needs no TensorFlow."""

import json

from byol_tf.config import Views


def front_matter(name: str, tags: list[str], metrics: list[tuple[str, str, float]] | None = None, dataset: str = "") -> str:
    """The YAML at the top of a card, as `huggingface_hub.ModelCard` reads it.

    Args:
        name: of the model.
        tags: beside those that every encoder of ours has.
        metrics: (metric's type, its name, its value) on a data set.
        dataset: its name.
    """
    lines = ["library_name: keras", "pipeline_tag: image-feature-extraction", "license: unknown", "tags:"]
    lines += [f"- {json.dumps(tag)}" for tag in (*tags, "self-supervised-learning", "feature-extraction", "tensorflow")]
    if metrics:
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:"]
        lines += ["  - task:", "      type: image-classification", "    dataset:"]
        lines += [f"      type: {json.dumps(dataset)}", f"      name: {json.dumps(dataset)}", "    metrics:"]
        for kind, label, value in metrics:
            lines += [f"    - type: {kind}", f"      name: {json.dumps(label)}", f"      value: {value:.4f}"]
    return "\n".join(["---", *lines, "---", ""])


def preparation(views: Views) -> str:
    """What happens to an image before the network sees it, all of it inside the SavedModel and the `.keras` file."""
    return (
        f"An image's largest centred square is resized to {views.size} px (bilinear, antialiased), then\n"
        f"  (image / 255 - mean) / deviation with {_numbers(views.mean)} and {_numbers(views.std)}: all of that is inside."
    )


def _numbers(three: tuple[float, float, float]) -> str:
    return f"({', '.join(f'{number:g}' for number in three)})"
