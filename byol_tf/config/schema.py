"""Configuration schema: type, range, default and documentation of every key.

`loading.py` reads a JSON file into these classes; `checks.py` holds the checks between keys. The
string under a key is its documentation, for `--explain`, `docs/config.md` and editors.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from byol_tf.config.checks import (
    TAU_BASE,
    TAU_DROP_AT,
    TAU_ENDS,
    TAU_SCHEDULE,
    conflicts,
    with_channel_defaults,
)
from byol_tf.config.types import (
    MAX_IMAGES,
    MAX_WIDTH,
    ChannelMean,
    ChannelStd,
    Count,
    EncoderName,
    ExpectedText,
    FilePath,
    Fraction,
    Minutes,
    NotNegative,
    PixelRange,
    Positive,
    Section,
    Text,
    Width,
)
from byol_tf.constants import HIDDEN_SIZE, PROJECTION_SIZE, Normalization, Padding
from byol_tf.errors import ConfigError
from pipelines.policy import PRESETS, ViewPolicy
from pipelines.registry import MAX_CHANNELS, SOURCES


class About(Section):
    """The result that a recipe reproduces. For people; no code uses it."""

    reproduces: str
    """Paper, section or code that the recipe follows."""
    hardware: str
    """Hardware of the run, here or in the source."""
    time: str
    """Duration on that hardware."""
    accuracy: str
    """The figure to expect, with its protocol."""
    measured: Literal["here", "paper", "no"]
    """`here`: this repository ran it (see docs/results); `paper`: the source's figure; `no`: not
    measured yet."""


class Data(Section):
    """The images, and how they are cached. Labels never reach pre-training."""

    source: Literal[*SOURCES]  # type: ignore[valid-type]  # the names of the registry
    """`textures`: generated from the seed, nothing to download; `digits`: scikit-learn's
    handwritten digits; `folder`: your own photos; `shards`: photos in tar, TFRecord, ArrayRecord or
    Parquet files; `huggingface`: a data set of Hugging Face's datasets; `arrays`: images given in
    Python, to `Experiment`; the others: TFDS."""
    root: FilePath | None = None
    """`folder`: the folder of photos, or a `.txt`, `.csv` or `.tsv` file that lists them, with or
    without classes (docs/photos.md). `shards`: their folder, or a pattern such as
    `photos-{000..999}.tar`; `huggingface`: the name of a data set, or the folder that it was saved
    to (docs/sources.md). Folders and shards may lie behind a URL: `s3://bucket/photos`. TFDS
    sources: the folder of prepared data sets (default: TFDS's own, ~/tensorflow_datasets)."""
    layout: Literal["auto", "classes", "splits", "flat"] = "auto"
    """`folder`, `shards`, `huggingface`: what subfolders are, or what stands for them. `classes`:
    each is a class; `splits`: `train`, `test`, `unlabelled` and the like, with classes in them;
    `flat`: of no meaning, without labels; `auto`: decided by their names, and an error where they
    don't tell."""
    archive: FilePath | None = None
    """TFDS sources without network: the archive, downloaded by hand (`stl10_binary.tar.gz`,
    `cifar-10-binary.tar.gz`), or for `imagenet` the folder with `ILSVRC2012_img_train.tar` and
    `ILSVRC2012_img_val.tar`."""
    pretrain: Literal["unlabelled", "train", "train+unlabelled"] | None = None
    """Split to pre-train on. Default: the unlabelled one if the source has it, else `train` without
    its labels."""
    pretrain_images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    """Number of images to pre-train on, sampled by the seed (STL-10 paper, table 1). Default:
    all."""
    image_size: Annotated[int, Field(ge=8)] | None = None
    """Side in pixels at which images are stored: the shorter side is resized to it, then the centre
    is cropped. Default: not resized; needed to cache photos of different sizes in memory."""
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 3
    """Number of channels of every image (docs/channels.md). With 3 channels of 8 bits, photos of
    any other form are converted to RGB; otherwise a file with another number of channels can't be
    read."""
    depth: Literal[8, 16] = 8
    """Bits of a pixel's number. `16`: images are kept, and given to encoders, as whole numbers up
    to 65,535."""
    range: PixelRange | None = None
    """Own photos: the numbers [low, high] in all files that become black and white; those outside
    are cut off. Default: 0 and the largest number of a file's type, [0, 1] for floats, and the
    window of a DICOM file."""
    cache: Literal["auto", "memory", "none"] = "auto"
    """`memory`: decoded images are cached; `none`: they are read again each epoch; `auto`:
    `memory` if all splits fit into half of the free memory."""
    max_unreadable_fraction: Fraction = 0.01
    """`folder`, `shards`, `huggingface`: a larger fraction of unreadable files stops the run."""


class Views(Section):
    """The two views of an image: a preset, and changes to it for each view."""

    size: Annotated[int, Field(ge=8)]
    """Side of a view in pixels."""
    preset: Literal["byol", "stl10", "simclr", "simsiam", "none"] = "byol"
    """`byol`: the BYOL paper's two policies; `stl10`: the STL-10 paper's, `simclr` and `simsiam`:
    theirs, the same for both; `none`: no augmentation."""
    engine: Literal["keras", "keras_cv", "fused"] = "keras"
    """Implementation of the views; all use the same random parameters. `keras`: layers of Keras, in
    tf.data; `keras_cv`: the same operations by layers of KerasCV, which needs Keras 3.15 or
    earlier; `fused`: matrix products inside the training step, on the accelerator, from uint8
    images, or from uint8 crops made in tf.data if the images have several sizes."""
    placement: Literal["step", "host"] = "step"
    """Where `fused` makes views: `step`, inside the training step, so that only uint8 images are
    copied to the accelerator; `host`, in tf.data."""
    exact: bool = False
    """`fused` only: pixels are clipped after every operation, and saturation and hue are those of
    HSV, as in the papers' code and the other engines. Otherwise colour operations are linear and
    clipped once: faster."""
    first: ViewPolicy = ViewPolicy()
    """Policy of the first view: only the keys that differ from the preset."""
    second: ViewPolicy = ViewPolicy()
    """Policy of the second view: only the keys that differ from the preset."""
    mean: ChannelMean | None = (0.485, 0.456, 0.406)
    """Subtracted from each channel of an image in [0, 1], after augmentation. Default: ImageNet's;
    none where data.channels isn't 3, and then `--dry-run` measures it."""
    std: ChannelStd | None = (0.229, 0.224, 0.225)
    """Divides each channel afterwards. Default: as of `mean`."""

    @property
    def is_normalized(self) -> bool:
        """True if mean and std are given; they have no default where data.channels isn't 3."""
        return self.mean is not None and self.std is not None

    @property
    def preparation(self) -> tuple[int, ChannelMean, ChannelStd]:
        """(size, mean, std) of the views.

        Raises:
            ConfigError: if mean or std isn't given.
        """
        if self.mean is None or self.std is None:
            raise ConfigError(
                "views.mean: missing; expected a number for each channel, and so for views.std"
            )
        return self.size, self.mean, self.std

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, value: Any) -> Any:
        """Merges the changes of each view into its preset, before they are validated."""
        preset = value.get("preset", "byol") if isinstance(value, dict) else None
        if not isinstance(preset, str) or preset not in PRESETS:
            return value
        merged = dict(value)
        for name, base in zip(("first", "second"), PRESETS[preset], strict=True):
            changes = value.get(name, {})
            if isinstance(changes, dict):
                merged[name] = {**base, **changes}
        return merged


class Encoder(Section):
    """The network whose output is the representation."""

    name: EncoderName = "resnet50"
    """ResNet v1.5 as in deepmind-research, torchvision's ResNet-50 with wider 3x3 convolutions
    (`wide_resnet50_2`), or a small `convnet` for the demo; `keras.applications/NAME`;
    `keras_hub/PRESET`; or `MODULE:FUNCTION`, a function of your own that training imports and calls
    with `image_size` (docs/encoders.md). Of those only `weights`, `frozen_epochs`,
    `freeze_batch_norm` and `inference_size` of this section may be set."""
    width: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Multiplies the number of channels: 2 is the papers' "(2x)"."""
    stem: Literal["7x7", "3x3", "3x3+pool", "4x4"] = "7x7"
    """`7x7`: stride 2 and max-pooling, for photos; `3x3`: stride 1, no pooling, for 32 px images;
    `3x3+pool`: with max-pooling, a quarter of the computation; `4x4`: patches of 4 x 4 pixels
    without overlap, as in ConvNeXt, the cheapest. The stem of `convnet` is a 3x3 convolution of
    stride 2, or of stride 1 with `3x3`, or `4x4`."""
    normalization: Normalization = "batch"
    """`batch`; `layer`; `group`: 16 groups, with standardised kernels; `none`; `data_init`: scale
    and offset set once from a batch (paper without batch statistics, table 1 and sections 3.2 and
    3.3)."""
    padding: Padding = "same"
    """Padding of layers with a stride: `same` as TensorFlow and deepmind-research; `symmetric` as
    PyTorch, for weights that come from there."""
    zero_init_residual: bool = False
    """Initialises the scale of the last normalisation of each residual block with 0 instead of 1,
    so that a block is the identity at first, as in SimCLR's and SimSiam's code."""
    weights: FilePath | None = None
    """Initial weights: an `encoder.keras` (of `byol convert`, or a run's export) or
    its folder; a run folder (its newest checkpoint); a `.weights.h5` of the encoder; or `imagenet`,
    which Keras downloads for a `keras.applications` encoder. Default: random, from the seed."""
    frozen_epochs: NotNegative = 0.0
    """Epochs at the start in which only projector and predictor are trained, so that their first
    gradients, which are random, don't change what the weights know. Then the encoder's warm-up
    begins."""
    freeze_batch_norm: bool = False
    """Keeps the statistics, scales and offsets of batch normalisation, which runs as in inference.
    On photos of another kind or size than a network was trained on, new ones may cost more than
    training gains."""
    inference_size: Annotated[int, Field(ge=8)] | None = None
    """Side in pixels at which the encoder sees whole images: in the probe, in evaluations and in
    exports. Objects are smaller in a whole image than in the crops of a view, and a size of 1.2 to
    1.4 views.size makes up for it (FixRes, https://arxiv.org/abs/1906.06423). Default:
    views.size."""


class Projector(Section):
    """Network from representation to projection: linear, normalisation, ReLU, linear.

    BYOL paper, section 3.3.
    """

    hidden_size: Width = HIDDEN_SIZE
    """Width of the hidden layers."""
    output_size: Annotated[int, Field(ge=2, le=MAX_WIDTH)] = PROJECTION_SIZE
    """Width of the projection, and of its prediction. With objective.target `teacher` it is that of
    the teacher's representation instead."""
    num_layers: Annotated[int, Field(ge=1, le=8)] = 2
    """Number of linear layers; SimSiam has 3."""
    normalization: Normalization = "batch"
    """See encoder.normalization."""
    output_bias: bool = False
    """Gives the last linear layer a bias, as in the STL-10 paper's code."""
    normalize_output: bool = False
    """Normalises the projection too, as SimSiam does."""
    output_scale: bool = True
    """Gives the projection's normalisation a trainable scale; false in SimSiam's code."""
    output_center: bool = True
    """Gives the projection's normalisation a trainable offset; false in the code of SimSiam
    and of SimCLR."""


class Predictor(Section):
    """Network that predicts the target's projection from the online one: two linear layers.

    BYOL paper, section 3.3.
    """

    kind: Literal["mlp", "none", "fixed"] = "mlp"
    """`none`: the projection is the prediction (STL-10 paper, table 2; SimCLR); `fixed`: keeps its
    random initial weights (SimSiam report, B)."""
    hidden_size: Width = HIDDEN_SIZE
    """Width of the hidden layer; less than projector.output_size is SimSiam's bottleneck."""
    normalization: Normalization = "batch"
    """See encoder.normalization."""
    output_bias: bool = False
    """Gives the last linear layer a bias, as in the code of SimSiam and of the STL-10
    paper."""
    normalize_output: bool = False
    """Normalises the prediction too (SimSiam report, D)."""
    learning_rate_multiplier: Positive = 1.0
    """Multiplies the learning rate for the predictor's weights."""
    schedule: Literal["cosine", "constant"] | None = None
    """Schedule of the predictor's learning rate after the warm-up; `constant` in the SimSiam
    report, B. Default: optimizer.schedule."""


class Objective(Section):
    """The loss: which projections are predicted, and how they are compared."""

    target: Literal["ema", "online", "online_with_gradient", "teacher"] = "ema"
    """The network whose projections are predicted: `ema`: the target network, see `tau`; `online`:
    the online network, with stop-gradient (SimSiam); `online_with_gradient`: the online network,
    without it (SimCLR; SimSiam report, A); `teacher`: the frozen encoder that `teacher` names, of
    which representations are predicted (docs/distillation.md)."""
    teacher: FilePath | None = None
    """Target `teacher`: its encoder, as `embed --encoder` takes it: a run folder, an export or its
    `encoder.keras`, or the folder of a SavedModel. It stays where it is and is needed until the run
    is finished."""
    similarity: Literal["cosine", "cross_entropy"] = "cosine"
    """`cosine`: 2 - 2 cos (BYOL paper, equation 2); `cross_entropy`: between softmaxes (SimSiam
    report, E)."""
    symmetrization: Literal["symmetric", "asymmetric", "asymmetric_2x"] = "symmetric"
    """`symmetric`: each view predicts the other, and the losses are added; `asymmetric`: the first
    predicts the second; `asymmetric_2x`: the same, for two pairs of views of each image (SimSiam
    report, F)."""
    negatives: Fraction = 0.0
    """Weight beta of the batch's other images in the extended InfoNCE: 0 is BYOL's loss, 1 SimCLR's
    (BYOL paper, equation 8)."""
    temperature: Positive | None = None
    """Temperature alpha of the extended InfoNCE; needed if `negatives` isn't 0."""
    weight: Positive = 1.0
    """Multiplies the loss. SimSiam's is 0.25 x BYOL's with `cosine` (half the sum of -cos), 0.5
    with `cross_entropy`; 1 / (2 x temperature) is the scale of SimCLR's code, 1 / (4 x temperature)
    that of its paper."""


class Tau(Section):
    """Decay rate of the target network: target += (1 - tau) (online - target)."""

    schedule: Literal["constant", "cosine", "inverse_cosine", "drop"] = TAU_SCHEDULE
    """`cosine`: base up to end (BYOL paper); `inverse_cosine`: base down to end (STL-10 paper,
    table 8); `drop`: base, then 0 (its table 7)."""
    base: Fraction = TAU_BASE
    """Tau at the first step."""
    end: Fraction | None = None
    """Tau at the last step. Default: 1 for `cosine`, 0.5 for `inverse_cosine`."""
    drop_at: Fraction | None = None
    """`drop`: the fraction of all steps after which tau is 0. Default: 0.25."""

    @property
    def resolved_end(self) -> float:
        """`end`, or the value that null stands for."""
        return TAU_ENDS.get(self.schedule, 1.0) if self.end is None else self.end

    @property
    def resolved_drop_at(self) -> float:
        """`drop_at`, or the value that null stands for."""
        return TAU_DROP_AT if self.drop_at is None else self.drop_at


class Optimizer(Section):
    """The optimizer of the online network."""

    name: Literal["lars", "adam", "adamw", "lamb", "sgd"] = "adam"
    """`lars`: the BYOL paper's; `adam`: the STL-10 paper's; `sgd`: with momentum, SimSiam's;
    `adamw` and `lamb`: Keras' own."""
    base_learning_rate: Positive
    """Learning rate at `reference_batch_size`; the effective one is base_learning_rate x
    training.batch_size / reference_batch_size."""
    reference_batch_size: Count | None = 256
    """256 in the BYOL paper, 128 in the STL-10 paper; null: the rate isn't scaled."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine`: from the end of the warm-up down to 0; `constant`."""
    warmup_epochs: NotNegative = 0.0
    """Epochs over which the learning rate rises linearly from 0."""
    weight_decay: NotNegative = 0.0
    """Adds decay x weight to the gradient before the optimizer's update (L2, as in the papers);
    `adamw` and `lamb` decouple it."""
    exclude_norm_and_bias: bool = True
    """Whether biases and normalisation parameters get no weight decay, and with `lars` no trust
    ratio, as in the BYOL paper; false in the code of SimSiam and of the STL-10 paper."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Momentum of `lars` and `sgd`, and decay of the first moment of the others."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Multiplies the encoder's learning rate once for each twelfth of its depth, from its output to
    its input, as BEiT and MAE do for the blocks of a pre-trained ViT-Base (0.65, 0.75); projector
    and predictor keep theirs."""


class Training(Section):
    """Epochs and batches of pre-training."""

    epochs: Count
    """Passes over the pre-training images."""
    batch_size: Annotated[int, Field(ge=2)]
    """Images per step over all replicas, a multiple of their number. Images that fill no batch at
    the end of an epoch are skipped (different ones each epoch)."""
    gradient_accumulation_steps: Count = 1
    """Number of micro-batches that each replica's batch is split into, to save memory; batch
    statistics are then those of a micro-batch."""
    joint_batch_statistics: bool = False
    """Whether batch statistics are those of all views together, as in SimCLR's code; otherwise each
    view has its own, as in BYOL's and SimSiam's."""
    rematerialize: bool = False
    """Recomputes most of the encoder's activations in the backward pass instead of storing them:
    less memory, more time, same numbers."""
    deterministic: bool = False
    """Makes the same seed give the same losses to the last bit on the same machine. Slower."""


class Devices(Section):
    """The devices to train on, and the numerical precision."""

    strategy: Literal["auto", "cpu", "gpu", "mirrored", "multi_worker", "tpu"] = "auto"
    """`auto`: the TPU if the machine has one, else all GPUs, else the CPU; `mirrored`: all GPUs;
    `multi_worker`: all GPUs, or else the CPU, of each worker that Slurm, Vertex AI or the
    environment variable `TF_CONFIG` lists; the first one writes the run folder."""
    tpu: Text = "local"
    """`tpu`: its name or address; `local` on Colab and on TPU VMs."""
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Precision of the networks' computation; `auto`: mixed_bfloat16 where the devices of each
    worker compute it in hardware, else float32. Weights, losses, statistics and the target's
    average stay float32."""
    jit_compile: Literal["auto", "on", "off"] = "auto"
    """Whether XLA compiles the step; `auto`: only on a single GPU (a TPU always compiles)."""
    steps_per_execution: Count | None = None
    """Largest number of steps in one call of the compiled function; the next smaller divisor of an
    epoch's steps is used. Default: 1 on a CPU, 16 elsewhere."""
    start_timeout_minutes: Minutes = 10.0
    """`multi_worker`: minutes that the workers wait for each other at the start."""
    worker_timeout_minutes: Minutes = 5.0
    """`multi_worker`: minutes without a sign of life from a worker after which the others exit. One
    that ends is noticed at once."""


class Probe(Section):
    """Evaluation during training: a linear classifier and nearest neighbours on frozen features."""

    every_epochs: Count = 1
    """Epochs between two probes; the untrained encoder and the last epoch are always probed."""
    split: Literal["test", "held_out"] = "test"
    """Labelled images that the probe is tested on. `test`: the test images; `held_out`: a fifth of
    each class of the training images, sampled by the seed, on which the probe isn't fitted. Choose
    settings by held-out images, so that the test images still tell how good the choice is."""
    train_images: Count | None = None
    """Number of labelled images to train the probe on, class-balanced, sampled by the seed.
    Default: all (at most 50,000)."""
    test_images: Count | None = None
    """Number of labelled images to test it on. Default: all (at most 10,000)."""
    supervised: bool = False
    """Trains the same network from scratch on the probe's labels at the end of the run, as a
    baseline."""
    neighbours: Count = 20
    """Number k of nearest neighbours that vote."""
    temperature: Positive = 0.07
    """Neighbours vote with weight exp(cosine / temperature)."""


class Monitor(Section):
    """Reactions to collapse and non-finite numbers, see docs/collapse.md, and early stopping.

    That is in docs/curves.md, and the exit codes are in docs/resuming.md.
    """

    metric: Literal["probe_accuracy", "knn_accuracy", "effective_rank"] = "probe_accuracy"
    """Column of `history.csv` by which epochs are compared, for `early_stopping`, `run.export` and
    the best checkpoint, which is kept; higher is better. Accuracies need `probe.split` "held_out"
    to decide anything; `effective_rank` needs no labels, and is a weaker guide (docs/curves.md)."""
    early_stopping: Count | None = None
    """Number of measurements of `metric` in a row without an improvement after which the run ends:
    Keras' `patience`, counted in probes. null: the run goes to its last epoch."""
    min_delta: NotNegative = 0.0
    """Increase of `metric` over its highest value so far that counts as an improvement if it is
    exceeded; accuracies are fractions."""

    on_collapse: Literal["warn", "stop"] = "warn"
    """When all images get the same projection, or representations lie on a line: `warn` logs it
    once, with the likely cause; `stop` also ends the run after that epoch's checkpoint."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """A step with non-finite views, loss, gradients or batch statistics changes nothing and is
    never saved. `stop` ends the run there; `skip` continues, counts it in `skipped_steps`, and ends
    the run after 20 in a row. Non-finite weights or loss scale always end it."""


class Run(Section):
    """The run folder: checkpoints, exported encoder and report."""

    root: FilePath = "runs"
    """Folder in which run folders are created, each named <name>-<date>-<number>."""
    checkpoint_every_steps: Count | None = None
    """Steps between checkpoints, in addition to the one at each epoch's end; after the call, if
    several steps run in one call. Default: none."""
    checkpoint_every_minutes: Positive | None = 15.0
    """Minutes between checkpoints, in addition to the one at each epoch's end. null: none."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    """Number of newest checkpoints to keep; the best by `monitor.metric` is kept too. At least two,
    in case one is damaged."""
    export: Literal["last", "best"] = "last"
    """Epoch of the exported encoder, which the other commands use too: the last, or the best by
    `monitor.metric`."""
    stall_timeout_minutes: Minutes = 5.0
    """Minutes that a disk may take to answer. If it takes longer, a multi-worker run exits; a
    single worker waits on, and a signal ends it without the checkpoint that is being written."""
    report: bool = True
    """Whether a finished run writes `report.html`, its figures and TensorBoard's projector, which
    takes some seconds; `byol report` writes the page later."""
    trackers: Annotated[
        tuple[Literal["wandb", "mlflow", "trackio"], ...],
        Field(strict=False),
        ExpectedText('a list of "wandb", "mlflow" and "trackio"', ("wandb", "mlflow", "trackio")),
    ] = ()
    """Experiment trackers that get each row of `history.csv` too; each is a package of its own (the
    extras `wandb`, `mlflow`, `trackio`)."""


class Config(Section):
    """A complete experiment: nothing outside the config changes its result."""

    schema_: Annotated[str | None, Field(alias="$schema")] = None
    """File of the JSON schema, for editors."""
    about: About | None = None
    """Description of the recipe."""
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"),
        ExpectedText(
            "a name of at most 100 letters, digits, '.', '_' and '-', a letter or digit first"
        ),
    ]
    """Name of the experiment, with which the run folder's name begins."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""
    data: Data
    views: Views
    encoder: Encoder = Encoder()
    projector: Projector = Projector()
    predictor: Predictor = Predictor()
    objective: Objective = Objective()
    tau: Tau = Tau()
    optimizer: Optimizer
    training: Training
    devices: Devices = Devices()
    probe: Probe = Probe()
    monitor: Monitor = Monitor()
    run: Run = Run()

    @property
    def inference_preparation(self) -> tuple[int, ChannelMean, ChannelStd]:
        """(size, mean, std) of whole images, as `models.inference.inference_model` takes them.

        Raises:
            ConfigError: if mean or std isn't given.
        """
        size, mean, std = self.views.preparation
        return self.encoder.inference_size or size, mean, std

    def normalized(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> Self:
        """Returns the config with this mean and std where it has none; default: 0.5 and 0.25."""
        if self.views.is_normalized:
            return self
        channels = self.data.channels
        numbers = {
            "mean": self.views.mean or tuple(mean or [0.5] * channels),
            "std": self.views.std or tuple(std or [0.25] * channels),
        }
        return self.model_copy(update={"views": self.views.model_copy(update=numbers)})

    @model_validator(mode="before")
    @classmethod
    def _fill_for_channels(cls, value: Any) -> Any:
        return with_channel_defaults(value)

    @model_validator(mode="after")
    def _check_conflicts(self) -> Self:
        lines = [
            f"{keys[0]}: {text}"
            for keys, text in conflicts(lambda key: reduce(getattr, key.split("."), self))
        ]
        if lines:
            raise ValueError("\n".join(lines))
        return self
