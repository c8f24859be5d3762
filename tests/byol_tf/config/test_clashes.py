"""The exact message where the values of two keys exclude each other."""

import pytest

from tests.helpers.config_files import edited, message

pytestmark = pytest.mark.usefixtures("in_empty_folder")

# Changes to BASE -> the complete message.
CLASHES = [
    (
        {"data__source": "folder"},
        'data.root: missing; expected the folder that holds the photos, as data.source is "folder"',
    ),
    (
        {"data__source": "textures", "views__size": 32, "data__root": "photos"},
        'data.root: expected null, as data.source "textures" reads no folder; received "photos"',
    ),
    (
        {"data__source": "folder", "data__root": "photos", "data__archive": "a.tar"},
        'data.archive: expected null, its default, as data.source "folder" has no archive; '
        'received "a.tar"',
    ),
    (
        {"data__source": "cifar10", "data__pretrain": "unlabelled", "views__size": 32},
        'data.pretrain: expected "train" or null, as data.source "cifar10" has no unlabelled '
        'images; received "unlabelled"',
    ),
    (
        {"data__image_size": 128},
        'data.image_size: expected at most 96, the side of the images of data.source "stl10"; '
        "received 128",
    ),
    (
        {"data__source": "folder", "data__root": "photos", "data__cache": "memory"},
        (
            "data.image_size: missing; expected a whole number of 8 or more, "
            'as data.cache "memory" stores photos of different sizes as one array'
        ),
    ),
    (
        {"views__size": 224},
        'views.size: expected at most 96, the side of the images of data.source "stl10"; received '
        "224",
    ),
    (
        {"encoder__inference_size": 97},
        'encoder.inference_size: expected at most 96, the side of the images of data.source "stl10"'
        "; received 97",
    ),
    ({"data__image_size": 64}, "views.size: expected at most data.image_size (64); received 96"),
    (
        {"data__source": "digits"},
        "views.size: expected at most 32, the side of digits if data.image_size is null; "
        "received 96",
    ),
    (
        {"views__placement": "host"},
        'views.placement: expected "step", its default, as views.engine "keras" always '
        'works in tf.data; received "host"',
    ),
    (
        {"views__exact": True},
        'views.exact: expected false, its default, as views.engine "keras" is exact; received true',
    ),
    (
        {"encoder": {"name": "convnet", "zero_init_residual": True}},
        'encoder.zero_init_residual: expected false, its default, as encoder.name "convnet" '
        "doesn't support it; received true",
    ),
    (
        {"projector": {"output_center": False}},
        "projector.output_center: expected true, its default, as projector.normalize_output is "
        "false; received false",
    ),
    (
        {
            "projector": {
                "normalization": "data_init",
                "normalize_output": True,
                "output_scale": False,
            }
        },
        "projector.output_scale: expected true, its default, as projector.normalization "
        '"data_init" is a scale and an offset; received false',
    ),
    (
        {"training__gradient_accumulation_steps": 5},
        "training.gradient_accumulation_steps: expected a divisor of training.batch_size (64); received 5",
    ),
    (
        {"devices": {"strategy": "mirrored", "jit_compile": "on"}},
        (
            'devices.jit_compile: expected "auto" or "off", as with devices.strategy "mirrored" replicas '
            "share variables that XLA can't reach; "
            'received "on"'
        ),
    ),
    (
        {"devices": {"strategy": "multi_worker", "jit_compile": "on"}},
        (
            'devices.jit_compile: expected "auto" or "off", as with devices.strategy "multi_worker" '
            "replicas share variables that XLA can't "
            'reach; received "on"'
        ),
    ),
    (
        {"encoder": {"name": "keras.applications/MobileNet", "width": 0.5}},
        'encoder.width: expected 1, its default, as encoder.name "keras.applications/MobileNet" '
        "is built without it; received 0.5",
    ),
    (
        {"encoder": {"name": "my_encoders:small", "normalization": "layer"}},
        'encoder.normalization: expected "batch", its default, as encoder.name "my_encoders:small" '
        'is built without it; received "layer"',
    ),
    (
        {"encoder__width": 0.3},
        'encoder.width: expected a multiple of 1/64, as the first layer of "resnet50" has 64 x '
        "width channels; received 0.3",
    ),
    (
        {"encoder": {"name": "convnet", "width": 1 / 64}},
        'encoder.width: expected a multiple of 1/32, as the first layer of "convnet" has 32 x '
        "width channels; received 0.015625",
    ),
    (
        {"tau": {"schedule": "constant", "end": 1}},
        'tau.end: expected null, as tau.schedule "constant" has no end; received 1',
    ),
    (
        {"tau": {"base": 0.99, "end": 0.5}},
        'tau.end: expected tau.base (0.99) or more, as tau.schedule "cosine" rises; received 0.5',
    ),
    (
        {"tau": {"schedule": "inverse_cosine", "base": 0.9, "end": 0.95}},
        'tau.end: expected tau.base (0.9) or less, as tau.schedule "inverse_cosine" falls; '
        "received 0.95",
    ),
    (
        {"tau": {"schedule": "inverse_cosine", "base": 0.3}},
        "tau.end: expected tau.base (0.3) or less (null is 0.5), as tau.schedule "
        '"inverse_cosine" falls; received null',
    ),
    (
        {"tau": {"drop_at": 0.5}},
        'tau.drop_at: expected null, its default, as tau.schedule "cosine" drops nothing; '
        "received 0.5",
    ),
    (
        {"tau": {"base": 0.99}, "objective": {"target": "online"}},
        'tau.base: expected 0.996, its default, as objective.target "online" averages nothing; '
        "received 0.99",
    ),
    (
        {"objective": {"target": "teacher"}},
        "objective.teacher: missing; expected the path of an encoder, as objective.target is "
        '"teacher"',
    ),
    (
        {"objective": {"teacher": "runs/big"}},
        'objective.teacher: expected null, as objective.target is "ema"; received "runs/big"',
    ),
    (
        {"objective": {"target": "teacher", "teacher": "x"}, "projector": {"output_size": 64}},
        'projector.output_size: expected 256, its default, as with objective.target "teacher" the '
        "projection is as wide as the teacher's representation; received 64",
    ),
    (
        {"objective": {"negatives": 0.5}},
        "objective.temperature: missing; expected a number above 0, as objective.negatives is 0.5",
    ),
    (
        {"objective": {"temperature": 0.1}},
        "objective.temperature: expected null, as objective.negatives is 0; received 0.1",
    ),
    (
        {"objective": {"negatives": 1, "temperature": 0.1, "similarity": "cross_entropy"}},
        'objective.negatives: expected 0, its default, as objective.similarity "cross_entropy" '
        "uses no negatives; received 1",
    ),
    (
        {"predictor": {"kind": "fixed", "schedule": "constant"}},
        'predictor.schedule: expected null, its default, as predictor.kind "fixed" is not '
        'trained; received "constant"',
    ),
    (
        {"predictor": {"kind": "none", "learning_rate_multiplier": 10}},
        'predictor.learning_rate_multiplier: expected 1, its default, as predictor.kind "none" is not trained; '
        "received 10",
    ),
    (
        {"encoder": {"name": "resnet18", "width": 0.125, "normalization": "group"}},
        (
            'encoder.normalization: expected another one, as "group" divides channels by 16 and '
            'the first layer of "resnet18" has 8; '
            'received "group"'
        ),
    ),
    (
        {"projector": {"hidden_size": 100, "normalization": "group"}},
        'projector.normalization: expected another one, as "group" divides projector.hidden_size by 16, '
        'and it is 100; received "group"',
    ),
    (
        {"predictor": {"hidden_size": 16, "normalization": "group"}},
        'predictor.normalization: expected another one, as "group" would normalise each of the 16 '
        'units of predictor.hidden_size alone, to 0; received "group"',
    ),
    (
        {
            "projector": {"output_size": 100},
            "predictor": {"normalization": "group", "normalize_output": True},
        },
        'predictor.normalization: expected another one, as "group" divides projector.output_size by '
        '16, and it is 100; received "group"',
    ),
    (
        {"optimizer__warmup_epochs": 100},
        "optimizer.warmup_epochs: expected fewer than training.epochs (100), as the cosine follows "
        "the warm-up; received 100",
    ),
    (
        {"optimizer__schedule": "constant", "optimizer__warmup_epochs": 100.5},
        "optimizer.warmup_epochs: expected at most training.epochs (100); received 100.5",
    ),
    (
        {"data__pretrain_images": 50},
        "training.batch_size: expected at most data.pretrain_images (50), or no batch is ever "
        "full; received 64",
    ),
    (
        {"devices": {"strategy": "gpu", "tpu": "grpc://10.0.0.1"}},
        'devices.tpu: expected "local", its default, as devices.strategy "gpu" uses no TPU; '
        'received "grpc://10.0.0.1"',
    ),
    (
        {"devices": {"strategy": "tpu", "precision": "mixed_float16"}},
        (
            'devices.precision: expected "float32" or "mixed_bfloat16", as devices.strategy "tpu" '
            "has no fast float16; "
            'received "mixed_float16"'
        ),
    ),
    (
        {"probe__train_images": 10},
        "probe.neighbours: expected at most probe.train_images (10); received 20",
    ),
]


@pytest.mark.parametrize(("changes", "text"), CLASHES)
def test_message_of_one_clash(changes, text):
    assert message(edited(**changes)) == f"c.json: {text}"
