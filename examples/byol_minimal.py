"""BYOL in one file: learns from unlabelled images, then evaluates the features.

    python examples/byol_minimal.py

The images are 32 x 32 textures that the library makes itself, of ten classes. Training sees no
label. Before and after it a linear classifier is fitted on the encoder's features, with labels, and
tested on other images. On two CPU cores it takes about a minute.
"""

import argparse

import keras
import numpy as np

from byol_tf import (
    BYOL,
    FusedViews,
    WarmupSchedule,
    build_encoder,
    build_optimizer,
    cosine_tau,
    exclude_norm_and_bias,
    image_batches,
    inference_model,
    linear_accuracy,
    mlp_head,
    open_source,
    preset,
)

SIZE = 32  # side of a view, in pixels
MEAN = STD = (0.5, 0.5, 0.5)  # views are (pixel / 255 - mean) / std


def main() -> None:
    """Trains, and prints a linear classifier's accuracy before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000, help="to learn from")
    parser.add_argument("--labels", type=int, default=1000, help="of the classifier; as many tests")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)

    # 1. Images: uint8 [32, 32, 3]. Those of `pretrain` have no labels.
    source = open_source("textures", pretrain_images=options.images)
    steps_per_epoch = options.images // options.batch_size
    total_steps = options.epochs * steps_per_epoch

    # 2. Two views of each image: random crop, flip, colours, blur and solarisation (appendix B of
    # the paper), made inside the training step.
    batches = image_batches(source.pretrain, options.batch_size, seed=0)
    views = [
        FusedViews(policy, SIZE, number, MEAN, STD) for number, policy in enumerate(preset("byol"))
    ]

    # 3. The online network: encoder, projector, predictor. The target network is a copy of the
    # first two that `BYOL` makes.
    encoder = build_encoder("convnet", SIZE)
    projector = mlp_head(encoder.output_shape[-1], 256, 64, "projector")
    predictor = mlp_head(64, 256, 64, "predictor")
    # The target network follows the online one by tau, from 0.99 for a short run up to 1.
    tau = cosine_tau(0.99, total_steps)
    model = BYOL(encoder, projector, predictor, views=views, tau=tau)

    # 4. Adam with weight decay on kernels alone, and a learning rate that warms up, then falls.
    optimizer = build_optimizer(
        "adam", WarmupSchedule(2e-3, total_steps, warmup_steps=steps_per_epoch), weight_decay=1e-6
    )
    exclude_norm_and_bias(optimizer, model.networks.values())
    model.compile(optimizer)

    # 5. A linear classifier on frozen features, before and after training.
    def accuracy() -> float:
        frozen = inference_model(encoder, SIZE, MEAN, STD)  # uint8 images to features [n, d]
        some = np.arange(options.labels)
        train, test = (
            frozen.predict(images.batch(some), verbose=0) for images in (source.train, source.test)
        )
        return linear_accuracy(train, source.train.labels[some], test, source.test.labels[some])

    untrained = accuracy()
    model.fit(batches, epochs=options.epochs, steps_per_epoch=steps_per_epoch, verbose=2)
    print(f"accuracy: {untrained:.1%} untrained, {accuracy():.1%} trained without labels")


if __name__ == "__main__":
    main()
