"""A worker of TensorFlow's tutorial on several workers, with the connections of byol_tf.

Network, loss and optimizer are those of
https://www.tensorflow.org/tutorials/distribute/multi_worker_with_keras; the digits are
scikit-learn's, enlarged to 28 x 28 pixels. As a command it writes the trained weights into a
`.npz` file. Without a cluster Keras' own `fit` trains the same network on the same batches.
"""

import os
import sys

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np
import tensorflow as tf

from byol_tf.clusters import read_cluster
from byol_tf.config.schema import Devices
from byol_tf.models.trainer import MultiStepTrainer
from byol_tf.train.multi_worker import join_workers

BATCH = 128
# Fewer steps than the tutorial's 70: after hundreds a rounding error changes the sign of an
# activation that all black pixels share.
FIT = {"epochs": 3, "steps_per_epoch": 10, "verbose": 0}


class Classifier(MultiStepTrainer):
    """A network with the training step of a classifier."""

    def __init__(self, network: keras.Model):
        super().__init__()
        self.network = network

    def call(self, images):
        return self.network(images)

    def train_step(self, data):
        images, labels = data
        replicas = self.distribute_strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
            share = loss / replicas  # the optimizer adds the gradients of all replicas
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(share, variables), variables, strict=True))
        return {"loss": loss}


def build_network() -> keras.Model:
    return keras.Sequential(
        [
            keras.layers.InputLayer(shape=(28, 28)),
            keras.layers.Reshape(target_shape=(28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def batches(count: int, index: int) -> tf.data.Dataset:
    """Returns a worker's rows of endless batches of `BATCH` digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = tf.image.resize(digits.images[..., None] / 16, (28, 28))[..., 0]
    rows = tf.data.Dataset.from_tensor_slices((images, digits.target.astype(np.int64)))
    return rows.shuffle(2_000, seed=0).repeat().shard(count, index).batch(BATCH // count)


def train_alone() -> keras.Model:
    keras.utils.set_random_seed(0)
    network = build_network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(learning_rate=0.001), loss)
    network.fit(batches(1, 0), **FIT)
    return network


def train_with_others() -> keras.Model:
    # Before anything is computed, which the making of a model or an optimizer does.
    workers = join_workers(read_cluster(os.environ), Devices())
    with workers.exit_together():
        keras.utils.set_random_seed(0)
        with workers.strategy.scope():
            network = build_network()
            model = Classifier(network)
            model.compile(keras.optimizers.SGD(learning_rate=0.001))
        rows = batches(workers.count, workers.index)
        model.fit(workers.distribute(rows, BATCH), **FIT)
    return network


if __name__ == "__main__":
    trained = train_with_others() if "TF_CONFIG" in os.environ else train_alone()
    np.savez(sys.argv[1], *trained.get_weights())
