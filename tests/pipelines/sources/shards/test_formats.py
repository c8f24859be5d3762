"""Indices of shards in the layouts of WebDataset, ImageNet's scripts, TFDS and Hugging Face."""

import io
import json
import struct
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines.sources.shards.examples import array_record_records, tfrecord_records
from pipelines.sources.shards.parquet import open_parquet, parquet_records, read_images
from pipelines.sources.shards.records import BrokenShard
from pipelines.sources.shards.tar import tar_records
from tests.helpers.shard_files import jpeg, tar


def tar_index(data: bytes):
    return list(tar_records(io.BytesIO(data), len(data)))


class TestTar:
    def test_images_stand_where_the_index_says(self):
        members = {f"a/{number}.jpg": jpeg(number) for number in range(5)}
        data = tar(members)
        records = tar_index(data)
        assert [record.name for record in records] == list(members)
        for record in records:
            assert data[record.offset : record.offset + record.length] == members[record.name]

    @pytest.mark.parametrize(
        ("name", "content", "label"),
        [
            ("1.cls", b"7\n", "7"),
            ("1.txt", b"a cat", "a cat"),
            ("1.json", b'{"label": "cat", "width": 3}', "cat"),
            ("1.json", b'{"caption": "cat"}', None),
            ("1.json", b"[" * 5_000, None),
            ("2.cls", b"7", None),
            ("b/1.cls", b"7", None),
        ],
    )
    def test_label_is_that_of_the_member_with_the_same_key(self, name, content, label):
        assert tar_index(tar({"1.jpg": jpeg(1), name: content}))[0].label == label

    def test_class_member_is_preferred_to_a_text_in_any_order(self):
        data = tar({"1.cls": b"7", "1.jpg": jpeg(1), "1.txt": b"a photo of a cat"})
        assert tar_index(data)[0].label == "7"

    def test_links_hidden_files_and_others_are_no_images(self):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in ("._1.jpg", "__MACOSX/._1.jpg", "1.npy"):
                archive.addfile(tarfile.TarInfo(name))
            link = tarfile.TarInfo("2.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        assert tar_index(file.getvalue()) == []

    def test_long_and_foreign_names(self):
        names = ["x" * 150 + "/" + "y" * 150 + ".jpg", "\u732b/\udce9.jpg"]
        assert [each.name for each in tar_index(tar(dict.fromkeys(names, b"1")))] == names

    @pytest.mark.parametrize("end", [-700, 512 + 600, 512 + 300, 100])
    def test_truncated_archive_is_an_error(self, end):
        data = tar({f"{number}.jpg": bytes(600) for number in range(3)}).rstrip(b"\0")
        data += bytes(-len(data) % 512) + bytes(1024)
        whole = tar({f"{number}.jpg": b"x" * 600 for number in range(3)})[: 3 * (512 + 1024)]
        assert len(tar_index(whole + bytes(1024))) == 3
        with pytest.raises(BrokenShard):
            tar_index(whole[:end])

    def test_member_that_states_a_huge_size_is_not_read(self):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            member = tarfile.TarInfo("1.jpg")
            member.size = 2**43
            archive.addfile(member)
        with pytest.raises(BrokenShard, match="truncated, behind 0 images"):
            tar_index(file.getvalue())

    def test_archive_without_its_end_is_an_error(self):
        whole = tar({f"{number}.jpg": b"x" * 600 for number in range(3)})
        with pytest.raises(BrokenShard, match="truncated, behind 2 images"):
            tar_index(whole[: 2 * (512 + 1024)])


def example(**features: object) -> bytes:
    kinds = {
        bytes: lambda value: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])),
        int: lambda value: tf.train.Feature(int64_list=tf.train.Int64List(value=[value])),
        float: lambda value: tf.train.Feature(float_list=tf.train.FloatList(value=[value] * 3)),
    }
    named = {key.replace("__", "/"): kinds[type(value)](value) for key, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def tfrecord(*records: bytes) -> bytes:
    """Without valid checksums, which aren't read."""
    return b"".join(struct.pack("<Q", len(data)) + bytes(4) + data + bytes(4) for data in records)


def tfrecord_index(data: bytes):
    return list(tfrecord_records(io.BytesIO(data), len(data)))


class TestExamples:
    @pytest.mark.parametrize(
        ("features", "label", "name"),
        [
            ({"image": jpeg(1), "label": 3, "file_name": b"a.jpg"}, "3", "a.jpg"),  # TFDS
            (
                {
                    "image__encoded": jpeg(1),
                    "image__class__label": 449,
                    "image__class__synset": b"n01440764",
                    "image__class__text": b"tench, Tinca tinca",
                    "image__filename": b"n01440764_10026.JPEG",
                    "image__height": 10,
                    "image__object__bbox__xmin": 0.5,
                },
                "n01440764",
                "n01440764_10026.JPEG",
            ),
            ({"image": jpeg(1), "label": -1}, "-1", "0"),
            ({"image": jpeg(1)}, None, "0"),
        ],
    )
    def test_image_and_label_of_an_example(self, features, label, name):
        data = tfrecord(example(**features))
        (record,) = tfrecord_index(data)
        assert (record.label, record.name) == (label, name)
        assert data[record.offset : record.offset + record.length] == jpeg(1)

    def test_file_of_tensorflows_writer_with_images_alone(self, tmp_path):
        with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
            for number in range(3):
                writer.write(jpeg(number))
        data = (tmp_path / "x").read_bytes()
        found = [data[each.offset : each.offset + each.length] for each in tfrecord_index(data)]
        assert found == [jpeg(0), jpeg(1), jpeg(2)]

    @pytest.mark.parametrize("end", [-1, -5, 20, 5])
    def test_truncated_file_is_an_error(self, end):
        with pytest.raises(BrokenShard, match="truncated"):
            tfrecord_index(tfrecord(example(image=jpeg(1)))[:end])

    @pytest.mark.parametrize("record", [b"\n", b"\n\xff", b"\n" * 50, b"\n\x05abc", example(x=1)])
    def test_record_without_an_image_is_an_error(self, record):
        with pytest.raises(BrokenShard, match="record 0"):
            tfrecord_index(tfrecord(record))

    def test_array_records(self, tmp_path):
        module = pytest.importorskip("array_record.python.array_record_module")
        writer = module.ArrayRecordWriter(str(tmp_path / "x"), "group_size:1")
        records = [example(image=jpeg(number), label=number) for number in range(3)]
        for record in records:
            writer.write(record)
        writer.close()
        for number, record in enumerate(array_record_records(str(tmp_path / "x"))):
            assert (record.row, record.label) == (number, str(number))
            image = records[number][record.offset : record.offset + record.length]
            assert image == jpeg(number)
        (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:1000])
        with pytest.raises(BrokenShard):
            list(array_record_records(str(tmp_path / "x")))


def parquet(table: pa.Table, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file


class TestParquet:
    def check(self, file: io.BytesIO, labels: list, names: list[str] | None = None) -> None:
        records = list(parquet_records(file))
        assert [record.label for record in records] == labels
        if names is not None:
            assert [record.name for record in records] == names
        table = open_parquet(file)
        for number, record in enumerate(records):
            assert read_images(table, record.row)[record.offset].as_py() == jpeg(number)

    def test_hugging_face_layout(self):
        stated = {
            "image": {"_type": "Image"},
            "y": {"_type": "ClassLabel", "names": ["cat", "dog"]},
        }
        table = pa.table(
            {
                "image": [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in range(5)],
                "y": [0, 1, 1, 0, -1],
            }
        ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": stated}})})
        names = ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
        self.check(parquet(table, row_group_size=2), ["cat", "dog", "dog", "cat", None], names)

    def test_plain_binary_with_texts_or_numbers_as_labels(self):
        images = [jpeg(0), jpeg(1)]
        self.check(parquet(pa.table({"img": images, "label": ["cat", None]})), ["cat", None])
        self.check(parquet(pa.table({"jpg": images, "class": [3, 4]})), ["3", "4"], ["0", "1"])
        numbers = pa.array(images, pa.large_binary())
        self.check(parquet(pa.table({"image": numbers, "label": [[1], [2]]})), [None, None])

    def test_measured_label_is_no_class(self):
        """The first column that may name a class counts, if its values can: floats can't."""
        images = [jpeg(0), jpeg(1)]
        columns = {"image": images, "label": [0.5, 1.0], "class": ["cat", "dog"]}
        self.check(parquet(pa.table(columns)), ["cat", "dog"])
        self.check(parquet(pa.table({"image": images, "label": [0.5, 1.0]})), [None, None])

    def test_wrong_files_are_errors(self):
        with pytest.raises(BrokenShard, match=r"no column of images.*found text, image"):
            list(parquet_records(parquet(pa.table({"text": ["a"], "image": ["b"]}))))
        whole = parquet(pa.table({"image": [jpeg(0)]})).getvalue()
        with pytest.raises(BrokenShard, match="truncated"):
            list(parquet_records(io.BytesIO(whole[:-20])))

    def test_image_that_isnt_in_the_file_is_null(self):
        rows = [{"bytes": None, "path": "x.jpg"}]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        file = parquet(pa.table({"image": pa.array(rows, kind)}))
        assert read_images(open_parquet(file), 0)[0].as_py() is None
        (record,) = parquet_records(file)
        assert (record.length, record.facts) == (0, None)
