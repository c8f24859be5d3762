"""The teacher of a distillation, loaded and checked."""

from dataclasses import dataclass

import keras

from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError, EmbedError, ProtocolError
from byol_tf.evaluate.features import embed
from byol_tf.models.construction import dtype_policy
from byol_tf.models.losses import mean_cosine, projection_std
from byol_tf.models.teacher import teacher_of_views
from byol_tf.runs.collapse import COSINE, STD
from byol_tf.runs.data import sample_pretrain_images
from byol_tf.runs.encoder_files import encoder_files
from byol_tf.train.multi_worker import Workers
from pipelines.sources import Source

_KEY = "objective.teacher:"
_IMAGES = 64  # that the check embeds: a constant teacher shows on any few


@dataclass(frozen=True)
class Teacher:
    """The frozen encoder whose representations a run predicts.

    Attributes:
        path: as `objective.teacher` names it.
        digest: SHA-256 of its files, in hexadecimal.
        inference: model from uint8 or uint16 images to representations.
        model: the same from the run's views.
    """

    path: str
    digest: str
    inference: keras.Model
    model: keras.Model

    @property
    def width(self) -> int:
        """The d of its representations `[N, d]`."""
        return self.model.output_shape[-1]


@dtype_policy("float32")
def load_teacher(config: Config) -> Teacher | None:
    """Loads the encoder that `objective.teacher` names, in float32; returns None without one.

    To be called in the strategy's scope.

    Raises:
        ConfigError: if there is no such encoder, or it can't be loaded.
    """
    path = config.objective.teacher
    if path is None:
        return None
    try:
        files = encoder_files(path, _KEY)
        inference = files.load()
        model = teacher_of_views(inference, *config.views.preparation)
    except (EmbedError, ProtocolError, ConfigError) as error:
        text = str(error).removeprefix(f"{_KEY} ").removeprefix("--run ")
        raise ConfigError(f"{_KEY} {text}") from error
    return Teacher(path, files.digest, inference, model)


def check_teacher(teacher: Teacher, config: Config, source: Source, workers: Workers) -> None:
    """Checks that all workers have the same teacher, and that it tells the run's images apart.

    Raises:
        ConfigError: if the workers have different teachers, or the teacher's representations of
            some images aren't finite, are zero, or are all nearly the same.
    """
    if mismatches := workers.find_mismatches(teacher.digest):
        raise ConfigError(
            "objective.teacher: expected the same encoder on each worker; worker "
            f"{mismatches[0] + 1} has another one than the first"
        )
    representations = embed(
        teacher.inference, sample_pretrain_images(config, source, count=_IMAGES)
    )
    std, cosine = float(projection_std(representations)), float(mean_cosine(representations))
    if not (std >= STD or 0.0 < cosine <= COSINE):  # zeros have 0 and 0; NaN is neither
        raise ConfigError(
            f"objective.teacher: {teacher.path}: expected an encoder whose representations "
            f"differ from image to image; received ones of std {std:.3f} and mean cosine "
            f"{cosine:.4f} over {len(representations)} images"
        )
