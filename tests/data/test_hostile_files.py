"""Files and tables that are made to harm: nothing is run, read elsewhere, waited for, or unpacked without bound."""

from __future__ import annotations

import io
import os
import struct
import sys
import time
import zlib

import dataset_replicas as replicas
import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idml_hf.data import UnreadableImageError, as_image_set, decoding, load_images
from idml_hf.data.parquet_files import read_parquet
from idml_hf.index.queries import read_queries
from idml_hf.index.thumbnails import Thumbnails

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def png_header(width, height):
    """The start of a PNG that claims a size."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return header + struct.pack(">I", 64) + b"IDAT" + zlib.compress(bytes(64))


def encoded(kind, **options):
    buffer = io.BytesIO()
    replicas.picture(0).save(buffer, kind, **options)
    return buffer.getvalue()


def ways_in(path):
    """Name -> a function that reads the file on that way."""
    folder = path.parent
    return {
        "data set": lambda: load_images(folder),
        "tensor": lambda: as_image_set([path]).tensor(0),
        "picture": lambda: as_image_set([path]).image(0),
        "query": lambda: [image.load() for image in read_queries(str(path))[0]],
        "thumbnail": lambda: Thumbnails.of(as_image_set([path])),
    }


@pytest.mark.parametrize("way", ["data set", "tensor", "picture", "query", "thumbnail"])
@pytest.mark.parametrize("kind", ["eps", "ico", "pcx", "huge", "text", "empty", "pipe", "zero", "sparse"])
def test_what_is_no_picture_is_refused_at_once_on_every_way(kind, way, tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript ran"))
    path = tmp_path / "picture.png"
    if kind in ("pipe", "zero", "sparse") and sys.platform == "win32":
        pytest.skip("POSIX only")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 2**40)
    else:
        content = {"eps": EPS, "huge": png_header(20_000, 20_000), "text": b"hello", "empty": b""}
        path.write_bytes(content[kind] if kind in content else encoded(kind.upper()))
    started = time.monotonic()
    with pytest.raises(UnreadableImageError) as error:
        ways_in(path)[way]()
    assert time.monotonic() - started < 10
    reason = {"pipe": "is a pipe", "zero": "is a device", "sparse": "bytes, and at most 512 MiB", "empty": "is empty"}
    reason |= {"huge": "20000 x 20000 pixels|bomb"}
    assert error.match(reason.get(kind, "not an image in a known format"))


def test_formats_are_named_and_start_no_program():
    assert not set(decoding.FORMATS) & {
        "EPS",
        "PSD",
        "FPX",
        "MIC",
        "WMF",
        "GBR",
        "SUN",
        "FITS",
        "HDF5",
        "BUFR",
        "GRIB",
    }
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        assert decoding.decode_pil(encoded(kind)).size == (12, 10)


@given(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_pixels_are_counted_before_they_are_decoded(width, height):
    data = png_header(width, height)
    if width * height > decoding.MAX_PIXELS:
        for decode in (decoding.decode_pil, decoding.decode_tensor):
            with pytest.raises(UnreadableImageError, match=r"at most 64 million are read|bomb"):
                decode(data)


@pytest.mark.parametrize("size", [(8000, 8001), (64_000_001, 1)])
def test_pictures_in_memory_have_the_same_limit(size):
    class Claimed(PIL.Image.Image):
        @property
        def size(self):
            return size

    with pytest.raises(UnreadableImageError, match="at most 64 million"):
        as_image_set([Claimed()])


def test_a_jpeg_of_countless_scans_is_refused(monkeypatch):
    data = encoded("JPEG", progressive=True)
    decoding.open_image(data)
    scan = data[data.index(b"\xff\xda") : data.rindex(b"\xff\xd9")]
    monkeypatch.setattr(decoding, "_MAX_SCANNED_PIXELS", 100 * 120)
    with pytest.raises(UnreadableImageError, match="more scans than a picture of its size needs"):
        decoding.open_image(data[:-2] + 100 * scan + data[-2:])


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"]), st.data())
def test_damaged_files_are_refused_in_one_line_or_decoded_alike(kind, data):
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        picture = np.asarray(decoding.decode_pil(content))
    except UnreadableImageError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
        return
    assert decoding.decode_tensor(content).shape == (3, *picture.shape[:2])


# Tables


def table_of(rows, **columns):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), **columns})
    features = datasets.Features({"image": datasets.Image(), **{name: datasets.Value("int64") for name in columns}})
    return table.replace_schema_metadata(features.arrow_schema.metadata)


@pytest.mark.parametrize("spelling", ["absolute", "up", "link", "home", "file URL"])
def test_rows_that_name_files_elsewhere_are_refused(spelling, tmp_path):
    secret = replicas.save(tmp_path / "private" / "secret.png", 5)
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "link.png").symlink_to(secret)
    path = {
        "absolute": str(secret),
        "up": "../private/secret.png",
        "link": "link.png",
        "home": "~/secret.png",
        "file URL": secret.as_uri(),
    }[spelling]
    rows = [{"bytes": encoded("PNG"), "path": "a.png"}, {"bytes": None, "path": path}]
    pq.write_table(table_of(rows, label=[0, 1]), folder / "train.parquet")
    with pytest.raises(UnreadableImageError, match="1 of 2 images cannot be read"):
        load_images(folder)
    kept = load_images(folder, skip_bad_images=True)
    assert [kept.image_id(i) for i in range(len(kept))] == ["a.png"]
    unchecked = load_images(folder, check_images=False)
    for read in (unchecked.image, unchecked.tensor, unchecked.file_bytes):
        with pytest.raises(UnreadableImageError, match=r"outside of .*public; refused|cannot be opened"):
            read(1)
    with pytest.raises(UnreadableImageError):
        Thumbnails.of(unchecked)


def test_rows_may_name_files_of_their_own_folder(tmp_path):
    replicas.save(tmp_path / "images" / "0.png", 5)
    pq.write_table(table_of([{"bytes": None, "path": "images/0.png"}], label=[0]), tmp_path / "train.parquet")
    assert (np.asarray(load_images(tmp_path)[0]) == np.asarray(replicas.picture(5))).all()


@pytest.mark.parametrize("made", ["parquet", "json"])
def test_a_dataset_of_somebody_elses_table_names_no_files(made, tmp_path):
    secret = replicas.save(tmp_path / "secret.png", 5)
    table = datasets.Dataset(table_of([{"bytes": None, "path": str(secret)}], label=[0]))
    table.info.builder_name = made
    with pytest.raises(UnreadableImageError, match="only names a file; refused"):
        as_image_set(table).image(0)
    table.info.builder_name = None
    assert as_image_set(table).image(0).size == (12, 10), "the user's own"


def test_rights_to_files_are_kept_apart_when_sets_are_joined_and_selected(tmp_path):
    secret = replicas.save(tmp_path / "secret.png", 5)
    table = datasets.Dataset(table_of([{"bytes": None, "path": str(secret)}], label=[0]))
    table.info.builder_name = "parquet"
    both = datasets_joined(as_image_set([secret]), as_image_set(table)).select([1, 0, 1])
    assert both.image(1).size == (12, 10)
    for index in (0, 2):
        with pytest.raises(UnreadableImageError, match="refused"):
            both.image(index)


def datasets_joined(first, second):
    from idml_hf.data.image_set import concatenate

    return concatenate(first, second)


@pytest.mark.parametrize("row", [None, {"bytes": None, "path": None}, {"bytes": b"", "path": None}])
def test_rows_without_an_image_are_bad_images(row, tmp_path, caplog):
    rows = [{"bytes": encoded("PNG"), "path": None}, row, {"bytes": encoded("PNG"), "path": None}]
    pq.write_table(table_of(rows, label=[0, 1, 2]), tmp_path / "train.parquet")
    with pytest.raises(UnreadableImageError, match=r"row 1 (has no image|is empty)"):
        load_images(tmp_path)
    kept = load_images(tmp_path, skip_bad_images=True)
    assert kept.original_labels.tolist() == [0, 2] and "1 of 3 images cannot be read" in caplog.text


def bomb(path, value, rows, **options):
    table = table_of([{"bytes": value, "path": None}] * rows, label=[0] * rows)
    with pq.ParquetWriter(path, table.schema, compression="zstd", **options) as writer:
        for _ in range(8):
            writer.write_table(table)


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}], ids=["one value, stored once", "packed"])
def test_parquet_that_unpacks_without_bound_is_refused(options, tmp_path, monkeypatch):
    monkeypatch.setattr("idml_hf.data.parquet_files._FREE_BYTES", 2**22)
    bomb(tmp_path / "train.parquet", bytes(2**18), 64, **options)
    before = pa.total_allocated_bytes()
    with pytest.raises(ValueError, match=r"train\.parquet unpacks to more than 50 times its size; refused"):
        load_images(tmp_path)
    assert pa.total_allocated_bytes() - before < 2**27


def test_few_rows_are_unpacked_at_a_time_where_values_are_shared(tmp_path, monkeypatch):
    monkeypatch.setattr("idml_hf.data.parquet_files._BATCH_BYTES", 2**20)
    bomb(tmp_path / "train.parquet", bytes(2**18), 16)
    sizes = []
    iterate = pq.ParquetFile.iter_batches

    def counted(self, batch_size, **options):
        sizes.append(batch_size)
        return iterate(self, batch_size, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert len(read_parquet([tmp_path / "train.parquet"])) == 128
    assert sizes == [3] or sizes == [4]


def test_ordinary_parquet_is_no_bomb(tmp_path):
    for name, options in (("plain", {"use_dictionary": False}), ("dictionary", {}), ("none", {"compression": "none"})):
        pq.write_table(
            table_of([{"bytes": encoded("PNG"), "path": None}] * 700, label=[0] * 700), tmp_path / name, **options
        )
        assert len(read_parquet([tmp_path / name])) == 700


def test_a_pipe_called_parquet_is_refused(tmp_path):
    if sys.platform == "win32":
        pytest.skip("POSIX only")
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="is no regular file"):
        load_images(tmp_path)
