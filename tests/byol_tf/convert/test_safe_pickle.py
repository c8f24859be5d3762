"""The pickle reader: arrays as NumPy, JAX, Haiku and dill write them; anything else is refused."""

import collections
import os
import pickle
import struct

import dill
import numpy as np
import pytest

from byol_tf.convert import safe_pickle
from byol_tf.convert.safe_pickle import StoredArray, read_arrays
from byol_tf.errors import ConversionError


def to_numpy(tree):
    """Returns the tree with NumPy's arrays in place of `StoredArray`s."""
    if isinstance(tree, dict):
        return {key: to_numpy(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(to_numpy(value) for value in tree)
    return tree.array if isinstance(tree, StoredArray) else tree


def read(tmp_path, content):
    path = tmp_path / "checkpoint.pkl"
    path.write_bytes(content)
    return read_arrays(path)


ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "columns first": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big-endian": np.arange(4, dtype=">f4"),
    "empty": np.zeros((0, 3), np.float32),
    "no sides": np.array(5, np.int32),
    "half": np.array([0.5, np.inf], np.float16),
    "flags": np.array([True, False]),
    "a view": np.arange(10.0)[::3],
    "all bytes": np.frombuffer(bytes(range(256)), np.uint8),
}


@pytest.mark.parametrize(
    ("dumps", "protocol"),
    [
        *((pickle.dumps, protocol) for protocol in range(6)),
        *((dill.dumps, protocol) for protocol in range(2, 6)),
    ],
    ids=lambda value: getattr(value, "__module__", value),
)
def test_arrays_are_read_as_they_were_written(dumps, protocol, tmp_path):
    tree = {
        "arrays": ARRAYS,
        "scalar": np.float32(1.5),
        "list": [1, "two", None, (True, 2.5)],
        "ordered": collections.OrderedDict(a=1),
    }
    result = to_numpy(read(tmp_path, dumps(tree, protocol=protocol)))
    assert result["list"] == tree["list"]
    assert result["scalar"] == 1.5
    assert result["ordered"] == {"a": 1}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(result["arrays"][name], array, name)
        assert result["arrays"][name].dtype == array.dtype, name


@pytest.mark.parametrize("dumps", [pickle.dumps, dill.dumps], ids=["pickle", "dill"])
def test_jax_arrays_haiku_mappings_and_named_tuples_are_read(dumps, haiku_byol, tmp_path):
    import haiku as hk
    import jax.numpy as jnp

    tree = {
        "jax": jnp.arange(3, dtype=jnp.float32),
        "haiku": hk.data_structures.to_immutable_dict(
            {"module": {"w": np.ones((1, 2), np.float32)}}
        ),
    }
    if dumps is dill.dumps:  # it writes a named tuple's class by its fields, pickle by its module
        tree["state"] = haiku_byol.State(1, 2, 3, 4, [])
    result = to_numpy(read(tmp_path, dumps(tree)))
    np.testing.assert_array_equal(result["jax"], [0, 1, 2])
    np.testing.assert_array_equal(result["haiku"]["module"]["w"], [[1, 1]])
    if "state" in tree:
        assert result["state"] == {
            "online_params": 1,
            "target_params": 2,
            "online_state": 3,
            "target_state": 4,
            "opt_state": [],
        }


def test_named_tuple_of_deepminds_module_is_read(tmp_path):
    fields = pickle.dumps((1, 2, 3, 4, 5), 2)[2:-1]
    result = read(
        tmp_path, b"\x80\x02cbyol.byol_experiment\n_ByolExperimentState\n" + fields + b"\x81."
    )
    assert result["target_params"] == 2


def test_functions_named_by_older_dill_are_found(tmp_path):
    """Older dill writes `_get_attr(_import_module("numpy.core.multiarray"), "_reconstruct")`."""
    array = pickle.dumps(np.arange(3, dtype=np.float32), 2)
    head = next(
        head
        for core in (b"_core", b"core")
        if (head := b"cnumpy.%b.multiarray\n_reconstruct\nq\x00" % core) in array
    )
    other = (
        b"cdill._dill\n_get_attr\n(cdill._dill\n_import_module\n(Vnumpy.core.multiarray\n"
        b"tRV_reconstruct\ntRq\x00"
    )
    np.testing.assert_array_equal(read(tmp_path, array.replace(head, other)).array, [0, 1, 2])
    with pytest.raises(ConversionError, match=r"os\.system"):
        read(
            tmp_path,
            b"\x80\x02cdill._dill\n_get_attr\n(cdill._dill\n_import_module\n(Vos\ntRVsystem\ntR.",
        )


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("forbidden", "name"),
    [
        (Call(os.system, "touch ran"), "system"),
        (Call(eval, "1"), "eval"),
        (Call(getattr, "a", "upper"), "getattr"),
        (Call(__import__, "antigravity"), "__import__"),
        (pickle.loads, "loads"),
        (Call(np.load, "x.npy"), "load"),
        (Call(np.zeros, 3), "zeros"),
        (Call(dill.loads, b""), "loads"),
        (collections.Counter("a"), "Counter"),
        (struct.Struct, "Struct"),
        (lambda: 1, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_names_are_refused_and_nothing_runs(forbidden, name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = (
        dill.dumps({"a": np.ones(2), "b": forbidden}, protocol=protocol)
        if name is None
        else pickle.dumps(forbidden, protocol)
    )
    with pytest.raises(ConversionError) as caught:
        read(tmp_path, content)
    assert "it holds" in str(caught.value) and "Nothing of it was run" in str(caught.value)
    assert (name or "dill") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pkl"]


def test_array_of_objects_is_refused(tmp_path):
    with pytest.raises(
        ConversionError, match="it holds an array of dtype 'O8', which isn't one of numbers"
    ):
        read(tmp_path, pickle.dumps(np.array([{}, None], object)))


def _with_state(state: bytes) -> bytes:
    """Returns the pickle of an array with a given state."""
    return (
        b"\x80\x03cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        + state
        + b"b."
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps(ARRAYS)[:100],
        b"\x80\x02.",
        b"\x80\x02K\x01Q.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",
        b"\x80\x02cnumpy\nndarray\n}X\x05\x00\x00\x00shapeK\x01sb.",  # a state for a class
        b"\x80\x02cnumpy\nndarray\nN}X\x0c\x00\x00\x00__setstate__K\x01s\x86b.",
        _with_state(b"K\x01"),
        _with_state(
            b"(K\x01K\x05\x85cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R\x89C\x00t"
        ),  # five numbers without bytes
        _with_state(
            b"(K\x01J\xff\xff\xff\xff\x85cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R\x89C\x00t"
        ),  # -1 numbers
        b"\x80\x02cnumpy._core.numeric\n_frombuffer\n(J\xff\xff\xff\x7fcnumpy\ndtype\n"
        b"X\x02\x00\x00\x00f4\x85RK\x01\x85X\x01\x00\x00\x00CtR.",
        b"\x80\x02cdill._dill\n_create_namedtuple\nX\x01\x00\x00\x00aK\x01\x86R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00bX\x03\x00\x00\x00hex\x86R.",
    ],
    ids=range(15),
)
def test_malformed_pickle_is_refused_and_changes_nothing(content, tmp_path):
    before = {name: dict(vars(each)) for name, each in safe_pickle._STAND_INS.items()}
    with pytest.raises(ConversionError, match="expected a pickle of arrays"):
        read(tmp_path, content)
    assert {name: dict(vars(each)) for name, each in safe_pickle._STAND_INS.items()} == before


def test_sparse_file_larger_than_memory_is_not_read(tmp_path):
    path = tmp_path / "sparse.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    os.truncate(path, 10**13)
    with pytest.raises(ConversionError, match=r"it has 10,000\.0 GB, and .* of memory are free"):
        read_arrays(path)


def test_missing_file_or_folder_is_refused(tmp_path):
    for path in (tmp_path / "none.pkl", tmp_path):
        with pytest.raises(ConversionError, match="can't be read"):
            read_arrays(path)
