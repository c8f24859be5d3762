"""The source's images that an export is measured on."""

import numpy as np

from byol_tf.config import Config
from byol_tf.run_images import source_options
from pipelines.sources import SourceError, sample_source

_COMPARED, _CALIBRATION = 100, 200


def compared_and_calibration(config: Config) -> tuple[list[np.ndarray], list[np.ndarray], str | None]:
    """Images to compare nearest neighbours on, others to measure int8's ranges on, and why there are none, if there are none.

    Args:
        config: of the run, which says where its images are.

    Returns:
        Two lists of uint8 `[H, W, 3]`, of 100 and 200; where there are fewer images, a third of them and the rest.
    """
    try:
        sample = sample_source(count=_COMPARED + _CALIBRATION, **source_options(config))
    except SourceError as error:
        return [], [], str(error)
    if sample is None:
        return [], [], f'data.source "{config.data.source}" has to be prepared first, which a run does'
    images = [sample[number] for number in range(len(sample))]
    compared = min(_COMPARED, len(images) // 3)
    return images[:compared], images[compared:], None
