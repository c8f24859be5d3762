"""`python -m benchmarks.starts --weights FILE --photos DIR ... --out DIR`: where to start from.

Few labels on frozen features and fine-tuned, from a random network, from BYOL, from a pretrained
network as it is and adapted by BYOL, and from a small network that the pretrained one taught. Each
folder of photos needs train/<class>/ and test/<class>/. FILE is what
`python -m benchmarks.efficientnet_lite0` writes.

Each result is a row of OUT/results.csv, written when it is measured; the same command skips rows
that are there, and resumes trainings. Rates and penalties are chosen on a held-out fifth of the
labels; test photos are used for the figures alone.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.devices import prepare_environment, set_seeds

LITE0 = "benchmarks.efficientnet_lite0:efficientnet_lite0"
RECIPES = {
    "random": "few-photos-byol",
    "byol": "few-photos-byol",
    "pretrained": "adapt",
    "adapted": "adapt",
    "distilled": "distill",
}
"""Start -> the recipe of its network, and of its training if it has one."""
SIZE = 64  # of the pretrained network's images; the small network's are the recipe's 48
COLUMNS = ("photos", "start", "protocol", "labels_per_class", "seed", "top1", "held_out", "chosen")
TIMES = ("seconds", "cpu_seconds")


class Measurement:
    """Trains and evaluates what isn't in the results yet."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.file = options, options.out / "results.csv"
        options.out.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            self.file.write_text(",".join(COLUMNS + TIMES) + "\n")

    def row(self, *key: object) -> bool:
        """Returns whether the file has a row that begins with these values."""
        with self.file.open(newline="") as file:
            return any(row[: len(key)] == [str(each) for each in key] for row in csv.reader(file))

    def measure(self, key: tuple, function: Callable[[], dict]) -> None:
        """Measures a row, unless it is there."""
        if self.row(*key):
            return
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        chosen = result.get("rate", result.get("C", ""))
        held_out = max(result.get("held_out_accuracy", {}).values(), default="")
        seconds = (round(time.perf_counter() - wall), round(time.process_time() - cpu))
        with self.file.open("a", newline="") as file:
            csv.writer(file).writerow([*key, result.get("top1", ""), held_out, chosen, *seconds])
        print(*key, result.get("top1", ""), *(f"{each} s" for each in seconds), flush=True)

    def config(self, start: str, photos: Path, seed: int) -> Config:
        """Returns the config of a training."""
        options = self.options
        recipe = RECIPES[start]
        changes = {
            "name": start,
            "seed": seed,
            "data.root": photos,
            "data.pretrain_images": options.images,
            "run.report": "false",
            "probe.every_epochs": 1000,
            "probe.train_images": min(1000, options.images),
            "probe.test_images": min(500, options.images),
            "training.epochs": options.adapt_epochs if recipe == "adapt" else options.epochs,
        }
        if recipe == "adapt":
            changes |= {
                "data.image_size": SIZE,
                "encoder.name": LITE0,
                "encoder.weights": options.weights,
            }
        if start == "distilled":
            changes |= {
                "objective.teacher": options.out / "teacher" / "encoder.keras",
            }
        if options.quick:
            changes |= {"encoder.frozen_epochs": 0.5} if recipe == "adapt" else {}
            changes |= {"optimizer.warmup_epochs": 0.2}
        return load_config(recipe, [f"{key}={value}" for key, value in changes.items()])

    def run(self) -> None:
        """Measures all rows."""
        for seed in self.options.seeds:
            for photos in self.options.photos:
                for start in self.options.starts:
                    self._start(start, photos, seed)

    def _start(self, start: str, photos: Path, seed: int) -> None:
        """Measures the rows of a start."""
        from byol_tf.runs.sources import source_options
        from pipelines.sources import balanced_indices, open_source, subset

        options = self.options
        cells = [
            (photos.name, start, protocol, labels, seed)
            for labels in options.labels
            for protocol in ("linear", "finetune")
        ]
        if all(self.row(*cell) for cell in cells):
            return
        config = self.config(start, photos, seed)
        inference = self._encoder(config, start, photos, seed)
        source = open_source(**source_options(config))
        test = subset(source.test, balanced_indices(source.test.labels, options.test_images, seed))
        for cell in cells:
            _, _, protocol, labels, _ = cell
            count = labels * len(source.class_names)
            train = subset(source.train, balanced_indices(source.train.labels, count, seed))
            evaluate = _linear if protocol == "linear" else self._finetune
            self.measure(cell, lambda: evaluate(inference, train, test, start, seed))  # noqa: B023

    def _encoder(self, config: Config, start: str, photos: Path, seed: int):
        """Returns the inference model of a start, trained before if it has to be."""
        import keras

        from byol_tf.models.from_config import build_config_encoder
        from byol_tf.models.inference import exported_form, inference_model
        from byol_tf.runs.encoders import load_run_encoder
        from byol_tf.runs.folder import RunFolder
        from byol_tf.runs.starting_weights import starting_weights
        from byol_tf.train.experiment import Experiment

        if start in ("random", "pretrained"):
            keras.config.set_dtype_policy("float32")
            set_seeds(seed, False)
            encoder = build_config_encoder(config)
            if start == "pretrained":
                weights = starting_weights(config.encoder.weights, encoder, config)
                for name, arrays in weights.items():
                    encoder.get_layer(name).set_weights(arrays)
            return inference_model(encoder, *config.views.preparation)
        teacher = self.options.out / "teacher" / "encoder.keras"
        if start == "distilled" and not teacher.exists():
            teacher.parent.mkdir(exist_ok=True)
            pretrained = self.config("pretrained", photos, seed)
            exported_form(self._encoder(pretrained, "pretrained", photos, seed)).save(teacher)
        folder = RunFolder(self.options.out / f"{photos.name}-{start}-{seed}")

        def train() -> dict:
            Experiment(config, folder.root).run(verbose=0)
            return {}

        key = (photos.name, start, "training", "", seed)
        if not folder.result.exists():
            self.measure(key, train)
        return load_run_encoder(config, folder)

    def _finetune(self, inference, train, test, start: str, seed: int) -> dict:
        from byol_tf.evaluate.finetune import TuneRecipe, tune_protocol

        scratch = start == "random"
        few = len(train) <= 30 * (int(train.labels.max()) + 1)
        epochs = 2 * self.options.tune_epochs if few else self.options.tune_epochs
        rates = (1e-3, 3e-3) if scratch else (3e-4, 1e-3)
        frozen = RECIPES[start] == "adapt"
        recipe = TuneRecipe(
            scratch, rates, seeds=1, epochs=(epochs,), batch_size=64, freeze_batch_norm=frozen
        )
        return tune_protocol(inference, train, test, recipe, seed)


def _linear(inference, train, test, start: str, seed: int) -> dict:
    from byol_tf.evaluate.features import embed
    from byol_tf.evaluate.logistic import logistic_protocol

    features = [(embed(inference, images), images.labels) for images in (train, test)]
    return logistic_protocol(*features[0], *features[1], seed)


def main() -> None:
    """Measures the rows that the results lack."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starts", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--starts", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 100], help="of each class")
    parser.add_argument("--images", type=int, default=5000, help="to train on without labels")
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=12, help="of the small network")
    parser.add_argument("--adapt-epochs", type=int, default=4)
    parser.add_argument("--tune-epochs", type=int, default=10, help="twice as many with few labels")
    parser.add_argument("--quick", action="store_true", help="minutes: figures mean nothing")
    options = parser.parse_args()
    if options.quick:
        options.images, options.test_images, options.labels = 128, 40, [4]
        options.epochs = options.adapt_epochs = options.tune_epochs = 1
    prepare_environment()
    Measurement(options).run()


if __name__ == "__main__":
    main()
