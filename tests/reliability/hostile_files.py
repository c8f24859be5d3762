"""Malicious model files: SavedModels, `.keras` files and run folders.

They try to write a file, the canary, or to read `SECRET`, or to crash or exhaust the process.
"""

import importlib
import io
import json
import os
import pickle
import socket
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import patch

import h5py
import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from byol_tf.runs import checkpoint_format
from byol_tf.runs.checkpoints import write_checkpoint

SECRET = "/etc/hostname"
ESCAPES = "\x1b]0;title\x07\x1b[2J\r"
"""Sets a terminal's title, and clears it."""
_CONV = "layers/conv2d/vars/0"


def good_model() -> keras.Model:
    """Returns a model from uint8 images of any size to 4 numbers."""
    images = keras.Input((None, None, 3), dtype="uint8")
    features = keras.layers.Conv2D(4, 3, activation="relu", name="conv2d")(
        keras.layers.Rescaling(1 / 255)(images)
    )
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(features))


def keras_members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _with_layer(layer: dict[str, Any]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Replaces the rescaling by a layer or any other object."""

    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        tree = json.loads(members["config.json"])
        old = tree["config"]["layers"][1]
        tree["config"]["layers"][1] = layer | {
            "name": old["name"],
            "inbound_nodes": old["inbound_nodes"],
        }
        return members | {"config.json": json.dumps(tree).encode()}

    return change


def _with_activation(activation: Any) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        tree = json.loads(members["config.json"])
        tree["config"]["layers"][2]["config"]["activation"] = activation
        return members | {"config.json": json.dumps(tree).encode()}

    return change


def _with_filters(count: int) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Gives the convolution more filters than the file has weights."""

    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        tree = json.loads(members["config.json"])
        tree["config"]["layers"][2]["config"]["filters"] = count
        return members | {"config.json": json.dumps(tree).encode()}

    return change


def _with_members(members: dict[str, bytes]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda good: good | members


def _with_weights(
    change: Callable[[h5py.File], None],
) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def changed(members: dict[str, bytes]) -> dict[str, bytes]:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            change(file)
        return members | {"model.weights.h5": buffer.getvalue()}

    return changed


def _replace(file: h5py.File, **options: Any) -> None:
    del file[_CONV]
    file.create_dataset(_CONV, **options)


def _link(file: h5py.File, link: Any) -> None:
    del file[_CONV]
    file[_CONV] = link


class Call:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def evil(path: Path) -> Call:
    """Returns an object that writes a file when it is unpickled."""
    return Call(exec, f"open({str(path)!r}, 'w').write('pickle')")


def write_controls(folder: Path, canary: Path) -> dict[str, str]:
    """Writes pickles that do, when they are loaded, what hostile files try.

    Returns:
        The name of each -> the audit event that it causes.
    """
    controls = {
        "writes": (f"open {canary} w", evil(canary)),
        "reads": (f"open {os.path.realpath(SECRET)} ", Call(open, SECRET)),
        "makes": ("os.mkdir ", Call(os.mkdir, str(canary.with_name("made")))),
        "runs": ("os.system ", Call(os.system, "true")),
        "starts": ("subprocess.Popen ", Call(subprocess.call, ["true"])),
        "connects": ("socket.", Call(socket.socket)),
        "imports": ("import ", Call(importlib.import_module, "evil")),
    }
    for name, (_, call) in controls.items():
        (folder / name).write_bytes(pickle.dumps(call))
    return {name: event for name, (event, _) in controls.items()}


def _object(
    module: str | None, name: str, config: Any, registered: str | None = None
) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def _lambda(code: str) -> dict[str, Any]:
    return _object("builtins", "__lambda__", {"value": code})


def keras_cases(canary: Path) -> dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]]:
    """Returns functions from the members of a good `.keras` file to those of a hostile one."""
    code = f"open({str(canary)!r}, 'w').write('code')"
    layer = {"name": "evil"}
    nan = np.full((3, 3, 3, 4), np.nan, np.float32)
    return {
        "lambda-layer": _with_layer(
            _object("keras.layers", "Lambda", layer | {"function": _lambda(code)})
        ),
        "lambda-activation": _with_activation(_lambda(code)),
        "seed-object": _with_layer(
            _object(
                "keras.layers",
                "Dropout",
                layer
                | {
                    "rate": 0.5,
                    "seed": _object("keras.layers", "StringLookup", {"vocabulary": SECRET}),
                },
            )
        ),
        "exec": _with_activation(_object("builtins", "function", "exec", "function")),
        "os-system": _with_layer(_object("os", "system", f"touch {canary}")),
        "module-evil": _with_layer(_object("evil", "Layer", layer, "evil>Layer")),
        "registered": _with_layer(
            _object("keras.layers", "Rescaling", layer | {"scale": 1}, "keras_cv>Evil")
        ),
        "get-file": _with_activation(_object("keras.utils", "function", "get_file", "get_file")),
        "savedmodel-layer": _with_layer(
            _object("keras.layers", "TFSMLayer", layer | {"filepath": str(canary.parent)})
        ),
        "torch-layer": _with_layer(
            _object("keras.layers", "TorchModuleWrapper", layer | {"module": "gASV"})
        ),
        "vocabulary-path": _with_layer(
            _object("keras.layers", "StringLookup", layer | {"vocabulary": SECRET})
        ),
        "typespec": _with_activation(_object("evil", "__typespec__", []) | {"spec_name": "x"}),
        "large-layer": _with_filters(100_000),
        "escape-module": _with_layer(_object(ESCAPES, "Layer", layer)),
        "escape-member": _with_members({f"{ESCAPES}x": b""}),
        "escape-weights": _with_weights(
            lambda file: file.__setitem__(ESCAPES, h5py.SoftLink("/layers"))
        ),
        "huge-layer": _with_layer(_object("keras.layers", "Dense", layer | {"units": 10**12})),
        "deep": _with_members({"config.json": b'{"a":' * 100_000 + b"1" + b"}" * 100_000}),
        "zip-slip": _with_members({"../../escaped.txt": b"out"}),
        "zip-absolute": _with_members({str(canary): b"out"}),
        "object-arrays": lambda members: {
            **{name: data for name, data in members.items() if not name.endswith("h5")},
            "model.weights.npz": _npz(canary),
        },
        "external-link": _with_weights(lambda file: _link(file, h5py.ExternalLink(SECRET, "/x"))),
        "soft-link": _with_weights(lambda file: _link(file, h5py.SoftLink("/layers"))),
        "external-data": _with_weights(
            lambda file: _replace(file, shape=(3, 3, 3, 4), dtype="u1", external=[(SECRET, 0, 108)])
        ),
        "packed-weights": _with_weights(
            lambda file: _replace(
                file, shape=(40_000, 40_000), dtype="f4", chunks=(100, 100), compression=9
            )
        ),
        "object-weights": _with_weights(
            lambda file: _replace(file, data=["x"] * 4, dtype=h5py.string_dtype())
        ),
        "nan-weights": _with_weights(lambda file: _replace(file, data=nan)),
        "wrong-shape": _with_weights(
            lambda file: _replace(file, data=np.zeros((5, 5, 3, 4), np.float32))
        ),
    }


def _npz(canary: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, evil=np.array([evil(canary)], dtype=object))
    return buffer.getvalue()


def write_hostile_keras(folder: Path, good: Path, canary: Path) -> None:
    members = keras_members(good)
    for name, change in keras_cases(canary).items():
        write_zip(folder / f"{name}.keras", change(dict(members)))
    write_zip(
        folder / "zip-bomb.keras",
        members | {"config.json": bytes(200_000_000)},
        zipfile.ZIP_DEFLATED,
    )
    write_zip(
        folder / "weights-bomb.keras",
        members | {"model.weights.h5": bytes(200_000_000)},
        zipfile.ZIP_DEFLATED,
    )
    (folder / "pickle.keras").write_bytes(pickle.dumps(evil(canary)))


def export(folder: Path, function: Callable, **attributes: Any) -> None:
    """Writes a SavedModel whose endpoint is `function` of the images."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    module.serve = tf.function(
        function, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)]
    )
    tf.saved_model.save(module, str(folder), signatures={"serve": module.serve})


def _features(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2])


def write_file_on_call(path: Path) -> Callable:
    """Returns the function of an endpoint that writes a file when it is called."""

    def serve(images):
        with tf.control_dependencies([tf.io.write_file(str(path), "graph")]):
            return tf.identity(_features(images))

    return serve


def write_hostile_saved_models(folder: Path, good: Path, canary: Path) -> None:
    def reads(images):
        return _features(images) + tf.cast(tf.strings.length(tf.io.read_file(SECRET)), tf.float32)

    def calls_python(images):
        return tf.ensure_shape(
            tf.numpy_function(lambda x: x, [_features(images)], tf.float32), (None, 3)
        )

    def restores(images):
        return (
            _features(images)
            + tf.raw_ops.RestoreV2(
                prefix=SECRET, tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
            )[0]
        )

    def hidden(images):
        return tf.cond(
            tf.shape(images)[0] > 0,
            lambda: write_file_on_call(canary)(images),
            lambda: _features(images),
        )

    for name, function in {
        "graph-writes": write_file_on_call(canary),
        "graph-reads": reads,
        "graph-python": calls_python,
        "graph-restores": restores,
        "graph-branch": hidden,
    }.items():
        export(folder / name, function)
    vocabulary = folder.parent / "words.txt"
    vocabulary.write_text("a\nb\n")
    whole_line, line_number = (
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    lines = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, whole_line, tf.int64, line_number
    )
    table = tf.lookup.StaticVocabularyTable(lines, num_oov_buckets=1)
    export(
        folder / "table-of-a-file",
        lambda images: _features(images) + tf.cast(table.lookup(tf.constant(["a"])), tf.float32),
        table=table,
    )
    variable = tf.Variable([np.nan, 0.0, 0.0])
    export(folder / "nan-variable", lambda images: _features(images) + variable, variable=variable)

    def edited(name: str, change: Callable[[Any], None]) -> None:
        copy(good, folder / name)
        content = saved_model_pb2.SavedModel()
        content.ParseFromString((folder / name / "saved_model.pb").read_bytes())
        change(content)
        (folder / name / "saved_model.pb").write_bytes(content.SerializeToString())

    edited("shadowed-operation", lambda model: _shadow(model.meta_graphs[0].graph_def, canary))
    edited(
        "saver-as-endpoint",
        lambda model: _call_saver(model.meta_graphs[0]),
    )
    copy(good, folder / "escape-file")
    (folder / "escape-file" / ESCAPES.replace("/", "")).write_text("")
    edited(
        "asset-outside",
        lambda model: model.meta_graphs[0].asset_file_def.add(filename=f"../../../..{SECRET}"),
    )
    edited("no-objects", lambda model: model.meta_graphs[0].ClearField("object_graph_def"))
    copy(good, folder / "linked-variables")
    data = folder / "linked-variables" / "variables" / "variables.data-00000-of-00001"
    data.unlink()
    data.symlink_to(SECRET)
    copy(good, folder / "noise")
    (folder / "noise" / "saved_model.pb").write_bytes(np.random.default_rng(0).bytes(5_000))


def _shadow(graph: Any, canary: Path) -> None:
    """Adds a function that is named like an operation of the graph, and writes a file."""

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def write(features):
        save = tf.raw_ops.SaveV2(
            prefix=str(canary), tensor_names=["x"], shape_and_slices=[""], tensors=[features]
        )
        with tf.control_dependencies([save]):
            return tf.identity(features)

    function = graph.library.function.add()
    function.CopyFrom(write.get_concrete_function().function_def)
    function.signature.name = "Relu"
    for caller in graph.library.function:
        for node in caller.node_def:
            if node.op == "Relu":
                node.attr.clear()


def _call_saver(meta: Any) -> None:
    """Has the endpoint call the function that saves the variables."""
    (saver,) = [
        function.signature.name
        for function in meta.graph_def.library.function
        if any(node.op == "SaveV2" for node in function.node_def)
    ]
    for node in meta.object_graph_def.nodes:
        if node.WhichOneof("kind") == "function":
            node.function.concrete_functions[:] = [saver]


def _write_pickled(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays as a checkpoint does, but also arrays of objects, which are pickled."""
    np.savez(file, **{name.replace("/", "|"): array for name, array in arrays.items()})


def _write_packed(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays as a checkpoint does, but compressed."""
    np.savez_compressed(file, **{name.replace("/", "|"): a for name, a in arrays.items()})


def write_hostile_runs(
    folder: Path, config: dict, arrays: dict[str, np.ndarray], canary: Path
) -> None:
    """Writes run folders whose only checkpoint is valid but has malicious or wrong arrays."""

    def write_run(name: str, config: dict, arrays: dict[str, np.ndarray], write: Callable) -> None:
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        with patch.object(checkpoint_format, "_write_arrays", write):
            write_checkpoint(folder / name / "checkpoints", 1, 0, arrays, {"rows": []})

    first = next(name for name, array in sorted(arrays.items()) if array.ndim == 4)
    for name, changed in {
        "run-pickled": arrays | {first: np.array([evil(canary)], dtype=object)},
        "run-nan": arrays | {first: np.full_like(arrays[first], np.nan)},
        "run-wrong-shape": arrays | {first: arrays[first][..., :-1]},
        "run-too-few": dict(list(arrays.items())[:-1]),
    }.items():
        write_run(name, config, changed, _write_pickled)
    write_run("run-packed", config, arrays | {"zeros": np.zeros(2**29, np.uint8)}, _write_packed)
    wide = config | {"encoder": config["encoder"] | {"width": 200.0}}
    write_run("run-wide", wide, arrays, _write_pickled)


def copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())
