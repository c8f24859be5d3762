"""`python -m benchmarks.probe --run DIR`: probes a run's encoder and the untrained one.

The linear and nearest-neighbour probe of training, on any number of labels: the usual protocol on
CIFAR-10 takes all 50,000.
"""

import argparse
import json
from pathlib import Path

from byol_tf.config.loading import load_config
from byol_tf.devices import prepare_environment, set_seeds
from byol_tf.runs.folder import RunFolder


def main() -> None:
    """Prints the accuracies as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe", description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--train-images", type=int, default=50_000)
    options = parser.parse_args()
    prepare_environment()
    from byol_tf.models.from_config import build_model
    from byol_tf.models.inference import inference_model
    from byol_tf.runs.encoders import load_run_encoder
    from byol_tf.runs.sources import source_options
    from byol_tf.train.callbacks.probe import Probe
    from pipelines.sources import balanced_indices, open_source, subset

    config = load_config(options.run / "config.json")
    views = config.views
    source = open_source(**source_options(config))
    train_images = min(options.train_images, len(source.train))
    train = subset(source.train, balanced_indices(source.train.labels, train_images, config.seed))
    set_seeds(config.seed, False)
    encoders = {
        "untrained": inference_model(
            build_model(config).encoder, views.size, views.mean, views.std
        ),
        "trained": load_run_encoder(config, RunFolder(options.run)),
    }
    result = {
        "benchmark": "probe",
        "run": options.run.name,
        "train_images": train_images,
        "test_images": len(source.test),
    }
    for name, encoder in encoders.items():
        probe = Probe(
            encoder, train, source.test, 1, 1, config.probe.neighbours, config.probe.temperature
        )
        result[name] = {key: round(value, 4) for key, value in probe.measure().items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
