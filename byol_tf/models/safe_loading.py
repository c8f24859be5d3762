"""Checks of model files from untrusted sources, before anything in them is loaded.

The checks are lists of allowed content, since lists of dangerous content have always proved
incomplete. Keras' safe mode refuses Lambda layers and has been bypassed: by functions that download,
vocabularies that are paths, and HDF5 links into other files. A SavedModel is a program, as
TensorFlow's security guide says; some of its operations read and write any file.
"""

import contextlib
import io
import json
import math
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import function_pb2
from tensorflow.core.protobuf import saved_model_pb2

from byol_tf.compat import build_without_values
from byol_tf.errors import UnsafeModelError
from byol_tf.models.networks import BatchNorm, Conv2D, DataInit, GroupNorm, WSConv2D, WSDense


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLAIN_LAYERS = _names("""
    Activation Add AlphaDropout Average AveragePooling2D BatchNormalization CenterCrop Concatenate Conv1D Conv2D Conv2DTranspose
    Cropping2D Dense DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Flatten GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalMaxPooling2D GroupNormalization Identity InputLayer LayerNormalization
    LeakyReLU MaxPooling2D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute ReLU RepeatVector Rescaling Reshape
    Resizing SeparableConv2D Softmax SpatialDropout2D SpectralNormalization Subtract UnitNormalization UpSampling2D ZeroPadding2D
""")
_ACTIVATIONS = _names("""
    celu elu exponential gelu hard_sigmoid hard_silu hard_swish leaky_relu linear log_softmax mish relu relu6 selu sigmoid silu
    softmax softplus softsign swish tanh
""")
_INITIALIZERS = _names("""
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones Orthogonal RandomNormal
    RandomUniform TruncatedNormal VarianceScaling Zeros
""")
_KERAS_OPERATIONS = {
    "numpy": _names("""
        Absolute Add Amax Amin Arctan Average BroadcastTo Ceil Clip Concatenate Cos Divide DivideNoNan Einsum Equal Exp ExpandDims
        Expm1 Flip Floor FloorDivide GetItem Greater GreaterEqual Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr Matmul Max
        Maximum Mean Min Minimum Mod Moveaxis Multiply Negative NotEqual OnesLike Pad Power Prod Reciprocal Repeat Reshape Roll Round
        Sign Sin Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take Tanh Tensordot Tile Transpose TrueDivide Var Where
        ZerosLike
    """),
    "nn": _names("""
        AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm Celu Conv ConvTranspose DepthToSpace DepthwiseConv
        DotProductAttention Elu Gelu Glu HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments
        Normalize RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu Softmax Softplus Softsign SpaceToDepth Squareplus TanhShrink
    """),
    "math": _names("Erf Erfc Logsumexp Rsqrt TopK"),
    "core": _names("Cast ConvertToTensor SaturateCast Slice StopGradient Unstack"),
    "linalg": _names("Norm"),
    "image": _names("ExtractPatches Resize"),
    "einops": _names("Rearrange"),
}
"""Module of `keras.src.ops` -> operations that a functional model may call, such as that of `x * 2`.
Those that take functions, or make arrays from sizes alone, aren't among them."""

LAYERS = frozenset(
    [("keras.layers", name) for name in _PLAIN_LAYERS]
    + [("keras.activations", name) for name in _ACTIVATIONS]
    + [("keras.initializers", name) for name in _INITIALIZERS]
    + [("keras.regularizers", name) for name in ("L1", "L2", "L1L2", "OrthogonalRegularizer")]
    + [("keras.constraints", name) for name in ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")]
    + [
        ("keras.src.models.functional", "Functional"),
        ("keras", "Functional"),
        ("keras.models", "Functional"),
    ]
    + [
        ("keras.src.models.sequential", "Sequential"),
        ("keras", "Sequential"),
        ("keras.models", "Sequential"),
    ]
    + [("keras", "DTypePolicy"), ("keras.dtype_policies", "DTypePolicy")]
    + [
        (f"keras.src.ops.{module}", name)
        for module, names in _KERAS_OPERATIONS.items()
        for name in names
    ]
    # Layers of keras.applications that have no public name.
    + [("keras.src.applications.convnext", name) for name in ("LayerScale", "StochasticDepth")]
    + [("keras.src.applications.inception_resnet_v2", "CustomScaleLayer")]
)
"""Allowed (module, class) pairs, as a `.keras` file names them."""

_OWN_LAYERS = frozenset(
    (layer.__module__, layer.__name__)
    for layer in (BatchNorm, Conv2D, DataInit, GroupNorm, WSConv2D, WSDense)
)

OPERATIONS = _names("""
    Abs Add AddN AddV2 All Any ArgMax ArgMin AssignVariableOp AvgPool BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd
    Bitcast BroadcastArgs BroadcastTo Cast Ceil ClipByValue ConcatV2 Const Conv2D Conv2DBackpropInput Cos DecodeImage DepthToSpace
    DepthwiseConv2dNative DisableCopyOnRead Div DivNoNan Einsum Elu EnsureShape Equal Erf Erfc Exp ExpandDims Expm1 Fill Floor FloorDiv
    FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 GatherNd GatherV2 Greater GreaterEqual Identity IdentityN If IsFinite
    IsInf IsNan L2Loss LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool MaxPoolV2
    Maximum Mean Min Minimum MirrorPad Mul MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder
    PlaceholderWithDefault Pow PreventGradient Prod Range Rank ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResizeArea
    ResizeBicubic ResizeBilinear ResizeNearestNeighbor Reverse ReverseV2 Rint Round Rsqrt ScaleAndTranslate Select SelectV2 Selu Shape
    ShapeN Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference
    Squeeze StatefulPartitionedCall StatelessIf StatelessWhile StopGradient StridedSlice Sub Sum Tanh TensorListFromTensor
    TensorListGetItem TensorListReserve TensorListSetItem TensorListStack Tile TopKV2 Transpose Unpack VarHandleOp VarIsInitializedOp
    Where While Xdivy Xlogy ZerosLike
""")
"""Allowed operations: they compute from their inputs and the model's own variables alone."""

_ARGUMENTS = {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"}
"""Arguments of calls that JSON has no type for: arrays are lists of numbers, slices three numbers."""
_KERAS_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_CONFIG_BYTES = 16 * 2**20  # that of a ResNet-200 has 0.3 MB
_MAX_GRAPH_BYTES = 64 * 2**20  # that of a ResNet-18 has 0.6 MB; weights are in other files
_MAX_CONSTANT_BYTES = 64 * 2**20
_MAX_LAYER_SIZE = 100_000  # of any number in a layer's config
_FOLDERS = {"variables", "assets", "assets.extra"}
_FILES = {"saved_model.pb", "fingerprint.pb", "keras_metadata.pb"}
_USER_OBJECTS = {
    "_generic_user_object",
    "trackable_list_wrapper",
    "trackable_dict_wrapper",
    "trackable_tuple_wrapper",
    "signature_map",
}
_OBJECT_TYPES = {
    "user_object",
    "variable",
    "function",
    "bare_concrete_function",
    "constant",
    "captured_tensor",
}


def check_keras_file(path: Path) -> None:
    """Checks a `.keras` file. Loads no code, writes nothing.

    Raises:
        UnsafeModelError: if the file isn't a zip of exactly the three files that Keras writes; if a
            layer isn't one of `LAYERS`; if the layers have more weights than the file; or if
            weights are links into other files, non-finite, or larger than the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if sorted(names) != sorted(_KERAS_MEMBERS):
                raise UnsafeModelError(
                    f"expected the files {', '.join(sorted(_KERAS_MEMBERS))} in it, each once; received "
                    f"{_shorten(names)}"
                )
            for member in members:
                # Keras doesn't compress, so a member larger than the file is a decompression bomb.
                limit = (
                    path.stat().st_size
                    if member.filename == "model.weights.h5"
                    else _MAX_CONFIG_BYTES
                )
                if member.file_size > limit:
                    raise UnsafeModelError(
                        f"{member.filename} unpacks to {member.file_size:,} bytes; expected at "
                        f"most {limit:,}"
                    )
            config = json.loads(archive.read("config.json"))
            _check_layers(config)
            _check_size(config, archive.getinfo("model.weights.h5").file_size)
            with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as weights:
                _check_weights(weights)
    except UnsafeModelError:
        raise
    # zipfile, json and h5py raise many types on broken input, RecursionError among them
    except Exception as error:
        raise UnsafeModelError(
            f"it isn't a file that Keras wrote: {type(error).__name__}: {error}"
        ) from error


def build_from_json(text: str) -> keras.Model:
    """Builds a model of the layers that a JSON text of Keras lists. Loads no code.

    Args:
        text: what `keras.Model.to_json` returned.

    Raises:
        UnsafeModelError: if it is something else, or a layer is neither Keras' nor byol_tf's.
    """
    try:
        config = json.loads(text)
        _check_layers(config)
        return keras.saving.deserialize_keras_object(config, safe_mode=True)
    except UnsafeModelError:
        raise
    except Exception as error:  # of many types, as above
        raise UnsafeModelError(
            f"it isn't a model that Keras wrote: {type(error).__name__}: {error}"
        ) from error


def check_weights_file(path: Path) -> None:
    """Checks a `.weights.h5` file as `check_keras_file` does the weights in a `.keras` file.

    Raises:
        UnsafeModelError: if it isn't HDF5, or weights are links, compressed or non-finite.
    """
    try:
        with h5py.File(path, "r") as weights:
            _check_weights(weights)
    except OSError as error:
        raise UnsafeModelError(f"it isn't an HDF5 file: {error}") from error


@contextlib.contextmanager
def checked_saved_model(folder: Path) -> Iterator[Path]:
    """Checks a SavedModel, and makes a temporary copy of it without the functions it doesn't call.

    Those read and write files: TensorFlow adds some to each SavedModel, which save and restore its
    variables under any path. They aren't loaded at all, since there are many ways to call a
    function, as by the name of an operation or of another implementation.

    Args:
        folder: of the SavedModel.

    Yields:
        The folder to load. Its graph is a copy, its variables are a link to those of `folder`.

    Raises:
        UnsafeModelError: if the folder has links or unexpected files, the graph an operation that
            isn't one of `OPERATIONS`, or a function the name of one.
    """
    content = _checked_graph(folder)
    with tempfile.TemporaryDirectory() as copy:
        (Path(copy) / "saved_model.pb").write_bytes(content.SerializeToString())
        (Path(copy) / "variables").symlink_to((folder / "variables").absolute())
        yield Path(copy)


def _checked_graph(folder: Path) -> saved_model_pb2.SavedModel:
    """Returns the content of saved_model.pb with only the functions that endpoints call."""
    _check_files(folder)
    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:  # the module of DecodeError differs between versions of protobuf
        raise UnsafeModelError(f"saved_model.pb isn't a graph: {error}") from error
    if len(content.meta_graphs) != 1 or not content.meta_graphs[0].HasField("object_graph_def"):
        raise UnsafeModelError(
            "expected one graph with objects, as TensorFlow 2 writes it; received "
            f"{len(content.meta_graphs)} graph(s)"
        )
    meta = content.meta_graphs[0]
    if meta.asset_file_def:
        raise UnsafeModelError(
            f"it names the file {meta.asset_file_def[0].filename!r:.80}; an encoder needs no assets"
        )
    _check_objects(meta.object_graph_def)
    functions = {function.signature.name: function for function in meta.graph_def.library.function}
    if shadowed := sorted(OPERATIONS.intersection(functions)):
        raise UnsafeModelError(
            f"its graph has a function named like the operation {shadowed[0]}, which TensorFlow "
            "would call in its place"
        )
    called = _reachable(meta.object_graph_def.concrete_functions, functions)
    for name in called:
        _check_nodes(functions[name].node_def)
    _check_nodes(meta.graph_def.node)
    meta.graph_def.library.CopyFrom(
        function_pb2.FunctionDefLibrary(function=[functions[name] for name in sorted(called)])
    )
    return content


def check_finite(weights: Iterator[np.ndarray]) -> None:
    """Raises `UnsafeModelError` if a weight isn't finite, as every result would be meaningless."""
    for array in weights:
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise UnsafeModelError("weights of it are not finite numbers")


def _check_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise UnsafeModelError(
                f"{inside} is a link or a special file; expected none in a SavedModel"
            )
        if inside.parts[0] not in _FOLDERS | _FILES:
            raise UnsafeModelError(f"{inside} doesn't belong in a SavedModel")
        if (
            inside.parts[0] != "variables"
            and path.is_file()
            and (inside.parts[0] in _FOLDERS or path.stat().st_size > _MAX_GRAPH_BYTES)
        ):
            raise UnsafeModelError(
                f"{inside}: expected no assets, and a graph of at most {_MAX_GRAPH_BYTES:,} bytes"
            )


def _check_layers(config: Any) -> None:
    pending = [config]
    while pending:  # not recursive, as the file decides how deep the nesting is
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            _check_class(item)
            pending += [
                value
                for key, value in item.items()
                # Whole numbers of any size. A seed may also be an object, which Keras would build.
                if not (key in ("seed", "shared_object_id") and isinstance(value, int))
            ]
        elif isinstance(item, int | float) and abs(item) > _MAX_LAYER_SIZE:
            raise UnsafeModelError(
                f"a layer has the number {item:g}; expected at most {_MAX_LAYER_SIZE:,}"
            )


def _check_size(config: dict[str, Any], available: int) -> None:
    """Compares the weights that the layers need with the bytes of those in the file.

    Keras allocates all layers before it finds that weights are missing.
    """
    model = build_without_values(
        lambda: keras.saving.deserialize_keras_object(
            config | {"compile_config": None}, safe_mode=True
        )
    )
    needed = sum(
        math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in model.weights
    )
    if needed > available:
        raise UnsafeModelError(
            f"its layers need {needed:,} bytes of weights; model.weights.h5 has {available:,}"
        )


def _check_class(item: dict[str, Any]) -> None:
    name = item.get("class_name")
    if name is None and "module" not in item and "registered_name" not in item:
        return
    module, registered = item.get("module"), item.get("registered_name")
    if name in _ARGUMENTS and module is None and registered is None:
        return
    if (
        (module, name) == ("builtins", "function")
        and ("keras.activations", item.get("config")) in LAYERS
        and registered == "function"
    ):
        return
    if (module, name) in _OWN_LAYERS and registered == f"byol_tf>{name}":
        return
    if (
        not isinstance(module, str)
        or (module, name) not in LAYERS
        or registered not in (None, name)
    ):
        class_name = ".".join(str(part)[:60] for part in (module, name))
        alias = f" registered as {registered!r:.60}" if registered not in (None, name) else ""
        raise UnsafeModelError(f"it contains {class_name}{alias}; expected Keras' own plain layers")


def _check_weights(group: h5py.Group) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise UnsafeModelError(f"weights {name[:60]} are a link to other data")
        item = group[name]
        if h5py.h5o.get_info(item.id).rc > 1:  # 40 groups with two of them have 2^40 paths
            raise UnsafeModelError(f"weights {name[:60]} have more than one place")
        if isinstance(item, h5py.Group):
            _check_weights(item)
            continue
        if item.external or item.is_virtual:
            raise UnsafeModelError(f"weights {name[:60]} are in another file")
        if item.dtype.kind not in "fiub":
            raise UnsafeModelError(f"weights {name[:60]}: expected numbers; received {item.dtype}")
        if item.id.get_storage_size() < item.nbytes:
            raise UnsafeModelError(
                f"weights {name[:60]} are compressed: {item.nbytes:,} bytes, of which the file has "
                f"{item.id.get_storage_size():,}"
            )
        check_finite(iter([item[...]]))


def _check_objects(objects: Any) -> None:
    for node in objects.nodes:
        object_type = node.WhichOneof("kind")
        if object_type not in _OBJECT_TYPES or node.saveable_objects or node.registered_saver:
            raise UnsafeModelError(
                f"it contains a {object_type or 'nameless'} object that runs code when it is loaded; "
                "expected plain ones"
            )
        if object_type == "user_object" and node.user_object.identifier not in _USER_OBJECTS:
            raise UnsafeModelError(
                f"it contains an object of the type {node.user_object.identifier!r:.60}; expected "
                "plain ones"
            )


def _check_nodes(nodes: Any) -> None:
    for node in nodes:
        if node.op not in OPERATIONS:
            raise UnsafeModelError(
                f"its graph has the operation {node.op[:60]}, which isn't known to be harmless"
            )
        value = node.attr["value"].tensor if node.op == "Const" else None
        if value is not None:
            count = np.prod([float(max(dimension.size, 0)) for dimension in value.tensor_shape.dim])
            if count > _MAX_CONSTANT_BYTES / 4:
                raise UnsafeModelError(f"its graph has a constant of {count:,.0f} numbers")


def _reachable(roots: Any, functions: dict[str, Any]) -> set[str]:
    """Returns the names of the functions that `roots` call, the roots included."""
    pending, reachable = list(roots), set()
    while pending:
        name = pending.pop()
        if name in reachable or name not in functions:
            continue
        reachable.add(name)
        pending += [callee for node in functions[name].node_def for callee in _callees(node)]
    return reachable


def _callees(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield from (callee.name for callee in (value.func, *value.list.func) if callee.name)


def _shorten(names: list[str]) -> str:
    return ", ".join(name[:60] for name in sorted(names)[:6]) + (
        f" and {len(names) - 6} more" if len(names) > 6 else ""
    )
