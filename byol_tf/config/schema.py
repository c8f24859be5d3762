"""Every knob of an experiment, once: its type, range, default, meaning and source.

`loading.py` reads a JSON file into these classes and words what is wrong; `checks.py` holds what
keys demand of each other. This module imports no TensorFlow, so that a mistake is reported in well
under a second.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from byol_tf.config.checks import TAU_DROP_AT, TAU_ENDS, conflicts
from pipelines.policy import PRESETS, ViewPolicy
from pipelines.registry import SOURCES


@dataclass(frozen=True)
class ExpectedText:
    """What a field takes, for messages, where its type alone does not say it."""

    expected: str


Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Text = Annotated[str, Field(min_length=1)]
# strict would refuse JSON's lists
ChannelMean = Annotated[
    tuple[float, float, float],
    Field(strict=False),
    ExpectedText("three numbers [red, green, blue]"),
]
ChannelStd = Annotated[
    tuple[Positive, Positive, Positive],
    Field(strict=False),
    ExpectedText("three numbers above 0 [red, green, blue]"),
]


class Section(BaseModel):
    """Strict, frozen, no unknown keys; the text under a field is its documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class About(Section):
    """What a recipe reproduces and what to expect of it. Read by people, used by nothing."""

    reproduces: str
    """Paper, section or code that the recipe follows."""
    hardware: str
    """What it was run on, or what the source ran it on."""
    time: str
    """How long it took there."""
    accuracy: str
    """The figure to expect, with its protocol."""
    measured: Literal["here", "paper", "no"]
    """`here`: this repository ran it (see docs/results); `paper`: the source's figure; `no`:
    nobody's, as yet."""


class Data(Section):
    """Which images, and how they are held. Labels never reach pre-training."""

    source: Literal[*SOURCES]
    """`textures`: drawn from the seed, nothing to download; `digits`: scikit-learn's handwriting;
    `folder`: photos of one's own; the others: TFDS."""
    root: Text | None = None
    """`folder`: the folder of photos, or a `.txt` or `.csv` that lists them, with a class each or
    without (docs/photos.md). TFDS sources: where prepared data sets lie (default: TFDS's own,
    ~/tensorflow_datasets)."""
    archive: Text | None = None
    """TFDS sources without network: the file that was downloaded by hand (`stl10_binary.tar.gz`,
    `cifar-10-binary.tar.gz`), or for `imagenet` the folder with `ILSVRC2012_img_train.tar` and
    `ILSVRC2012_img_val.tar`."""
    pretrain: Literal["unlabelled", "train", "train+unlabelled"] | None = None
    """Which split BYOL learns from. Default: the unlabelled one where the source has it, else
    `train` without its labels."""
    pretrain_images: Count | None = None
    """Use at most this many images for pre-training, drawn by the seed (STL-10 paper, table 1).
    Default: all."""
    image_size: Annotated[int, Field(ge=8)] | None = None
    """Images are stored at this side: the shorter side is resized to it, the centre is cut out.
    Default: as they are; needed for photos of different sizes if they are to be held in memory."""
    cache: Literal["auto", "memory", "none"] = "auto"
    """`memory`: decoded images are held as uint8; `none`: read again each epoch; `auto`: memory if
    all splits fit into half of what is free."""
    max_unreadable_fraction: Fraction = 0.01
    """`folder`: a larger share of unreadable files than this stops the run."""


class Views(Section):
    """The two views of an image. A preset, and what differs from it for each view."""

    size: Annotated[int, Field(ge=8)]
    """Side of a view in pixels."""
    preset: Literal["byol", "stl10", "simclr", "simsiam", "none"] = "byol"
    """`byol`: the BYOL paper's two policies; `stl10`: the STL-10 paper's, `simclr` and `simsiam`:
    theirs, the same for both; `none`: no augmentation."""
    engine: Literal["keras_cv", "fused"] = "keras_cv"
    """`keras_cv`: its layers, inside tf.data; `fused`: matrices inside the training step, on the
    accelerator, from uint8 images, or, where those are of several sizes, from uint8 crops that
    tf.data cuts out. Both make the same draws."""
    placement: Literal["step", "host"] = "step"
    """Where `fused` makes views: `step`, inside the training step, so that uint8 images go to the
    accelerator; `host`, in tf.data."""
    exact: bool = False
    """`fused` only: pixels are clipped after every operation, and saturation and hue are HSV's, as
    the papers' authors have it and `keras_cv` does. Otherwise colour is linear and clipped once:
    faster."""
    first: ViewPolicy = ViewPolicy()
    """Policy of the first view: only the keys that differ from the preset."""
    second: ViewPolicy = ViewPolicy()
    """Policy of the second view: only the keys that differ from the preset."""
    mean: ChannelMean = (0.485, 0.456, 0.406)
    """Subtracted from each channel of an image in [0, 1], after augmentation. Default:
    ImageNet's."""
    std: ChannelStd = (0.229, 0.224, 0.225)
    """Divides each channel afterwards."""

    @property
    def preparation(self) -> tuple[int, ChannelMean, ChannelMean]:
        """(size, mean, std), as `models.inference.inference_model` takes them."""
        return self.size, self.mean, self.std

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, value: Any) -> Any:
        """A view's object holds changes to its preset, so the preset goes below it before it is
        checked."""
        preset = value.get("preset", "byol") if isinstance(value, dict) else None
        if not isinstance(preset, str) or preset not in PRESETS:
            return value
        filled = dict(value)
        for name, base in zip(("first", "second"), PRESETS[preset], strict=True):
            changes = value.get(name, {})
            if isinstance(changes, dict):
                filled[name] = {**base, **changes}
        return filled


Normalization = Literal["batch", "layer", "group", "none", "data_init"]


class Encoder(Section):
    """The network whose output is the representation."""

    name: Literal[
        "convnet",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnet200",
        "wide_resnet50_2",
    ] = "resnet50"
    """ResNet v1.5 as in deepmind-research, torchvision's ResNet-50 with wider 3x3 convolutions, or
    a small `convnet` for the demo."""
    width: Positive = 1.0
    """Multiplies the number of channels: 2 is the papers' "(2x)"."""
    stem: Literal["7x7", "3x3", "3x3+pool"] = "7x7"
    """`7x7`: stride 2 and max-pooling, for photos; `3x3`: stride 1, no pooling, for 32 px images;
    `3x3+pool`: the same, a quarter of the work."""
    normalization: Normalization = "batch"
    """`batch`; `layer`; `group`: 16 groups, kernels standardised; `none`; `data_init`: scale and
    offset set once from a batch (paper without batch statistics, table 1 and sections 3.2 and
    3.3)."""
    padding: Literal["same", "symmetric"] = "same"
    """Of layers with a stride: `same` as TensorFlow and deepmind-research; `symmetric` as PyTorch,
    for weights that come from there."""
    weights: Text | None = None
    """What the encoder starts from: the `encoder.keras` that `python -m byol_tf.convert` or another
    run left, or the folder that holds it. Default: drawn from the seed."""


class Projector(Section):
    """From representation to projection: Linear, normalisation, ReLU, Linear (BYOL paper, section
    3.3)."""

    hidden_size: Count = 4096
    """Width of the hidden layers."""
    output_size: Annotated[int, Field(ge=2)] = 256
    """Width of the projection, and of its prediction."""
    num_layers: Annotated[int, Field(ge=1, le=8)] = 2
    """Linear layers; SimSiam has 3."""
    normalization: Normalization = "batch"
    """As encoder.normalization."""
    normalize_output: bool = False
    """Normalisation on the projection too, as in SimSiam."""


class Predictor(Section):
    """From projection to prediction of the target's projection: two linear layers (BYOL paper,
    section 3.3)."""

    kind: Literal["mlp", "none", "fixed"] = "mlp"
    """`none`: the projection is the prediction (STL-10 paper, table 2; SimCLR); `fixed`: stays as
    it was drawn (SimSiam report, B)."""
    hidden_size: Count = 4096
    """Width of the hidden layer; less than projector.output_size is SimSiam's bottleneck."""
    normalization: Normalization = "batch"
    """As encoder.normalization."""
    normalize_output: bool = False
    """Normalisation on the prediction too (SimSiam report, D)."""
    learning_rate_multiplier: Positive = 1.0
    """The predictor's learning rate is so many times that of the rest."""
    schedule: Literal["cosine", "constant"] | None = None
    """Of the predictor's learning rate after the warm-up. Default: optimizer.schedule. `constant`
    is SimSiam report, B."""


class Objective(Section):
    """What is compared with what."""

    target: Literal["ema", "online", "online_with_gradient"] = "ema"
    """Which network's projections are predicted: `ema`: the target network, see `tau`; `online`:
    the online network's own, no gradient through them (SimSiam); `online_with_gradient`: gradient
    through them (SimCLR; SimSiam report, A)."""
    similarity: Literal["cosine", "cross_entropy"] = "cosine"
    """`cosine`: 2 - 2 cos (BYOL paper, equation 2); `cross_entropy`: between softmaxes (SimSiam
    report, E)."""
    symmetrization: Literal["symmetric", "asymmetric", "asymmetric_2x"] = "symmetric"
    """`symmetric`: each view predicts the other, and the losses are added; `asymmetric`: the first
    predicts the second; `asymmetric_2x`: the same for two pairs of views of each image (SimSiam
    report, F)."""
    negatives: Fraction = 0.0
    """Weight beta of the other images of the batch in the extended InfoNCE: 0 is BYOL's loss, 1
    SimCLR's (BYOL paper, equation 8)."""
    temperature: Positive | None = None
    """Temperature alpha of the same; needed if `negatives` is not 0."""
    weight: Positive = 1.0
    """Multiplies the loss. SimSiam's is 0.25 x BYOL's with `cosine` (half the sum of -cos), 0.5
    with `cross_entropy`."""


class Tau(Section):
    """How slowly the target follows: target += (1 - tau) (online - target)."""

    schedule: Literal["constant", "cosine", "inverse_cosine", "drop"] = "cosine"
    """`cosine`: base up to end (BYOL paper); `inverse_cosine`: base down to end (STL-10 paper,
    table 8); `drop`: base, then 0 (its table 7)."""
    base: Fraction = 0.996
    """Tau at the first step."""
    end: Fraction | None = None
    """Tau at the last step. Default: 1 for `cosine`, 0.5 for `inverse_cosine`."""
    drop_at: Fraction | None = None
    """`drop`: the fraction of all steps after which tau is 0. Default: 0.25."""

    @property
    def resolved_end(self) -> float | None:
        """`end`, or what null stands for."""
        return TAU_ENDS.get(self.schedule) if self.end is None else self.end

    @property
    def resolved_drop_at(self) -> float:
        """`drop_at`, or what null stands for."""
        return TAU_DROP_AT if self.drop_at is None else self.drop_at


class Optimizer(Section):
    """How the online network learns. Biases and normalisation parameters are is_excluded weight
    decay."""

    name: Literal["lars", "adam", "adamw", "lamb", "sgd"] = "adam"
    """`lars`: the BYOL paper's; `adam`: the STL-10 paper's; `sgd`: with momentum, SimSiam's;
    `adamw` and `lamb`: Keras' own."""
    base_learning_rate: Positive
    """The rate at `reference_batch_size`; the effective one is base_learning_rate x
    training.batch_size / reference_batch_size."""
    reference_batch_size: Count | None = 256
    """256 in the BYOL paper, 128 in the STL-10 paper; null: the rate is used as it stands."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine`: down to 0 over what follows the warm-up; `constant`."""
    warmup_epochs: NotNegative = 0.0
    """The rate rises linearly from 0 over so many epochs."""
    weight_decay: NotNegative = 0.0
    """Added to the gradient as decay x weight before the optimizer sees it (L2, as in the papers);
    `adamw` and `lamb` decouple it."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """`lars` and `sgd`; the first moment of the others."""


class Training(Section):
    """How long, and in what steps."""

    epochs: Count
    """Passes over the pre-training images."""
    batch_size: Annotated[int, Field(ge=2)]
    """Images a step, over all replicas, which divide it. The rest of an epoch that fills no batch
    is left out (another rest each epoch)."""
    gradient_accumulation_steps: Count = 1
    """Each replica's batch is taken in so many parts, one after the other, to save memory; batch
    statistics are then a part's."""
    rematerialize: bool = False
    """The backward pass computes most of the encoder's activations again instead of keeping them:
    less memory, more time, same numbers."""
    deterministic: bool = False
    """The same seed gives the same losses to the last bit, on the same machine. Slower."""


class Devices(Section):
    """Where it runs."""

    strategy: Literal["auto", "cpu", "gpu", "mirrored", "multi_worker", "tpu"] = "auto"
    """`auto`: the TPU if one answers, else all GPUs, else the CPU; `mirrored`: all GPUs;
    `multi_worker`: all GPUs, or else the CPU, of each of the machines that the environment variable
    `TF_CONFIG` lists, whose first one writes the run folder."""
    tpu: Text = "local"
    """`tpu`: its name or address; `local` on Colab and on TPU VMs."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """What the networks compute in. Weights, losses, statistics and the target's average stay
    float32."""
    jit_compile: Literal["auto", "on", "off"] = "auto"
    """Whether XLA compiles the step: `auto` on one GPU, and nowhere else (a TPU always does)."""
    steps_per_execution: Count | None = None
    """At most so many steps run before Python is asked again. Default: 1 on a CPU, 16 elsewhere.
    The next divisor of an epoch's steps is taken."""


class Probe(Section):
    """How the representation is judged while it is learned: a linear classifier and nearest
    neighbours on frozen features."""

    every_epochs: Count = 1
    """Epochs between two probes; the untrained encoder and the last epoch are always probed."""
    train_images: Count | None = None
    """Labelled images that the probe learns from, class-balanced, drawn by the seed. Default: all
    (at most 50,000)."""
    test_images: Count | None = None
    """Labelled images that it is judged on. Default: all (at most 10,000)."""
    supervised: bool = False
    """At the end of the run the same network is trained from scratch on the probe's labels and
    judged on its test images, as a baseline."""
    neighbours: Count = 20
    """k of the nearest-neighbour vote."""
    temperature: Positive = 0.07
    """Neighbours vote with weight exp(cosine / temperature)."""


class Monitor(Section):
    """What happens when a run goes wrong by itself (docs/collapse.md, and the exit codes in
    docs/resuming.md)."""

    on_collapse: Literal["warn", "stop"] = "warn"
    """When all images get the same projection, or representations lie on a line: `warn` says so
    once, with the likely cause; `stop` also ends the run after that epoch's checkpoint."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """A step whose views, loss, gradients or batch statistics aren't finite changes nothing and is
    never saved. `stop` ends the run there; `skip` goes on, counts it in `skipped_steps`, and ends
    the run after 20 in a row. Weights or a loss scale that aren't finite always end it."""


class Run(Section):
    """What a run leaves behind."""

    root: Text = "runs"
    """Where run folders are made, each named <name>-<date>-<number>."""
    checkpoint_every_steps: Count | None = None
    """A checkpoint when so many steps were made since the last one, beside that at each epoch's
    end. Default: none. Where several steps run in one call, after the call."""
    checkpoint_every_minutes: Positive | None = 15.0
    """A checkpoint when so many minutes have passed since the last one. null: none."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    """How many of the newest checkpoints stay; the best by probe stays too. At least two, in case
    one is damaged."""
    report: bool = True
    """Whether a finished run draws `report.html`, its figures and TensorBoard's projector, which
    takes some seconds; `python -m byol_tf.report` makes the page later."""


class Config(Section):
    """One experiment. Nothing that changes its result lives outside it."""

    schema_: Annotated[str | None, Field(alias="$schema")] = None
    """Where editors find the types of these keys."""
    about: About | None = None
    """What the recipe reproduces."""
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"),
        ExpectedText(
            "a name of at most 100 letters, digits, '.', '_' and '-', a letter or digit first"
        ),
    ]
    """First part of the run folder's name."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Every random draw comes from it."""
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

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        lines = [
            f"{keys[0]}: {text}"
            for keys, text in conflicts(lambda key: reduce(getattr, key.split("."), self))
        ]
        if lines:
            raise ValueError("\n".join(lines))
        return self
