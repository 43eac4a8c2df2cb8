"""Split files: what is read, what is refused and how; images found by their ids."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch._utils import ExceptionWrapper

from datasets import progress
from datasets.files import MAX_LINE, DataError, read_json, read_lines
from datasets.images import image_transform
from datasets.split_file import ImageList, Split, find_unreadable, read_image_ids, read_split_file, write_split_file

IMAGESET = Path(__file__).resolve().parents[3] / "shared" / "data" / "imageset"


def write(folder: Path, content: bytes, name: str = "list_cls.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def error_of(path: Path, num_classes: int = 20) -> str:
    with pytest.raises(DataError) as caught:
        read_split_file(path, num_classes)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 600
    return message


def test_reads_ids_and_labels(tmp_path: Path) -> None:
    split = read_split_file(write(tmp_path, b"000012 6\nactor/0001_21 17 8\nempty\n"), 20)
    assert split == Split(["000012", "actor/0001_21", "empty"], [[6], [17, 8], []])
    targets = split.targets(20)
    assert targets.dtype == torch.float32 and targets.shape == (3, 20)
    assert targets.nonzero().tolist() == [[0, 6], [1, 8], [1, 17]]


@pytest.mark.parametrize("content", [
    b"a 1 2\r\nb 3\r\n", b"\xef\xbb\xbfa 1 2\nb 3", b"a 1 2\rb 3\r", b"\n a\t1  2 \n\nb 3\n\n \n", b"a 1 2 1\nb 3\n",
], ids=["CRLF", "BOM", "CR", "blanks", "label twice"])
def test_tolerates_what_editors_do(tmp_path: Path, content: bytes) -> None:
    assert read_split_file(write(tmp_path, content), 4) == Split(["a", "b"], [[1, 2], [3]])


@pytest.mark.parametrize(("content", "line", "words"), [
    (b"a 1\nb x\n", 2, "'x'"),
    (b"a 1\nb 1.0\n", 2, "no class number"),
    (b"a 1\n\nb 20\n", 3, "0 to 19"),
    (b"a -1\n", 1, "0 to 19"),
    (b"a " + b"9" * 5000, 1, "no class number"),
    (b"a 1\nb 2\na 1\n", 3, "on line 1 already"),
    (b"a 1\n\xff\xfe 2\n", 2, "not UTF-8"),
    ("a 1\n".encode("utf-16"), 1, "not UTF-8"),
    (b"a 1\n../../etc/passwd 2\n", 2, "out of the image folder"),
    (b"/etc/passwd 2\n", 1, "out of the image folder"),
    (b"C:/secret 2\n", 1, "out of the image folder"),
    (b"actor\\0001 2\n", 1, "backslash"),
    (b"a\x00b 2\n", 1, "control character"),
    (b"a 1\nb " + b"1 " * MAX_LINE, 2, "characters"),
    (b"holiday photo.jpg 2\n", 1, "double quotes"),
    (b'a 1\n"holiday photo 2\n', 2, "double quotes"),
    (b'"a"b 2\n', 1, "double quotes"),
    (b'"a b " 2\n', 1, "ends with a space"),
])
def test_refuses_with_file_and_line(tmp_path: Path, content: bytes, line: int, words: str) -> None:
    path = write(tmp_path, content)
    message = error_of(path)
    assert message.startswith(f"{path}:{line}:") and words in message


def test_an_id_with_spaces_stands_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, b'"my trip/IMG 3 (1)" 0 2\n"a b"\nc"d 1\n"e"\t1\n')
    assert read_split_file(path, 3) == Split(["my trip/IMG 3 (1)", "a b", 'c"d', "e"], [[0, 2], [], [1], [1]])


def test_empty_and_missing_files_say_what_builds_them(tmp_path: Path) -> None:
    assert "names no image" in error_of(write(tmp_path, b"\n \r\n"))
    assert "cannot be read" in error_of(tmp_path)
    missing = error_of(tmp_path / "imageset" / "voc2012" / "main_difficult_negative_val_cls.txt")
    assert "python -m datasets.build --dataset voc2012 --split_source main --difficult negative" in missing
    assert f"--output_root {tmp_path / 'imageset'}" in missing
    with pytest.raises(DataError, match=r"`python -m datasets.build --dataset coco2014`$"):
        read_image_ids("imageset/coco2014/no_such_cls.txt")


def test_training_reads_ids_whatever_the_labels_are(tmp_path: Path) -> None:
    honest = write(tmp_path, b"a 1 2\nb 3\nc\n", "honest.txt")
    for content in (b"a 3\nb 1\nc 2\n", b"a\nb\nc\n", b"a 99 x\nb -5\nc \xc3\xa9\n"):
        assert read_image_ids(write(tmp_path, content, "other.txt")) == read_image_ids(honest) == ["a", "b", "c"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("split")


GOOD_CHARACTER = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\:/.\ufeff')
GOOD_ID = st.text(GOOD_CHARACTER, min_size=1, max_size=12).filter(lambda text: text == text.strip(" "))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(GOOD_ID, st.lists(st.integers(0, 80), unique=True, max_size=5), min_size=1, max_size=8))
def test_what_is_written_reads_back(folder: Path, rows: dict) -> None:
    split = Split(list(rows), list(rows.values()))
    write_split_file(folder / "x_cls.txt", split)
    assert read_split_file(folder / "x_cls.txt", 81) == split
    assert read_image_ids(folder / "x_cls.txt") == split.image_ids


@pytest.mark.parametrize("image_ids", [["a "], ['a "b"'], [""], ["../a"], ["\ud800"], ["a", "b", "a"]])
def test_refuses_to_write_what_would_not_read_back(tmp_path: Path, image_ids: list) -> None:
    with pytest.raises(DataError, match="image id"):
        write_split_file(tmp_path / "x_cls.txt", Split(image_ids, [[]] * len(image_ids)))
    assert not list(tmp_path.iterdir())


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
                 st.text("ab01 .-/\\\n\r\t\x00\x1c\x85\u2028\ufeff", max_size=40).map(str.encode)))
def test_nothing_but_data_errors_comes_out(folder: Path, content: bytes) -> None:
    path = write(folder, content)
    for read in (lambda: read_split_file(path, 20), lambda: read_image_ids(path), lambda: list(read_lines(path)),
                 lambda: read_json(path)):
        try:
            read()
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("content", [
    b"", b"[" * 200_000, b'{"a":' * 200_000, b"9" * 5000, b'"\\ud800', b"\xff\xfe[\x00]\x00", b"[1,\n2,\n]",
], ids=["empty", "deep list", "deep object", "digits", "cut", "UTF-16", "comma"])
def test_bad_json_is_named_in_one_line(folder: Path, content: bytes) -> None:
    path = write(folder, content)
    with pytest.raises(DataError) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not IMAGESET.is_dir(), reason="../shared/data/imageset is not here")
@pytest.mark.parametrize(("name", "num_classes", "images", "positives"), [
    ("voc2007/train", 20, 2501, 4017), ("voc2007/test", 20, 4952, 7632), ("coco2014/val", 80, 40137, 113748),
])
def test_real_lists(tmp_path: Path, name: str, num_classes: int, images: int, positives: int) -> None:
    path = IMAGESET / f"{name}_cls.txt"
    split = read_split_file(path, num_classes)
    assert len(split.image_ids) == images and split.targets(num_classes).sum() == positives
    write_split_file(tmp_path / "copy.txt", split)
    assert (tmp_path / "copy.txt").read_bytes() == path.read_bytes()


def save_image(path: Path, shade: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(path, "PNG" if path.suffix.lower() == ".png" else "JPEG")


@pytest.mark.parametrize(("file", "image_id"), [
    ("000012.jpg", "000012"),
    ("000012.JPG", "000012"),
    ("000012.jpeg", "000012"),
    ("000012.png", "000012"),
    ("000012.png", "000012.png"),
    ("JPEGImages/000012.jpg", "000012"),
    ("VOCdevkit/VOC2007/JPEGImages/000012.jpg", "000012"),
    ("VOC2012/JPEGImages/2007_000032.jpg", "2007_000032"),
    ("actor/0001_2124494179.jpg", "actor/0001_2124494179"),
    ("Flickr/actor/0001_2124494179.jpg", "actor/0001_2124494179"),
    ("train2014/COCO_train2014_000000000009.jpg", "COCO_train2014_000000000009"),
    ("höhe/çå\u3000日本.jpg", "höhe/çå\u3000日本"),
])
def test_finds_images_as_archives_unpack(tmp_path: Path, file: str, image_id: str) -> None:
    root = tmp_path / "my photos"
    save_image(root / file)
    images = ImageList(root, [image_id], image_transform(16))
    tensor, index = images[0]
    assert images.path(0) == root / file and tensor.shape == (3, 16, 16) and index == 0 and len(images) == 1


def test_mixed_extensions_in_one_folder(tmp_path: Path) -> None:
    names = ["a.jpg", "b.PNG", "c.jpeg", "d.JPG"]
    for shade, name in enumerate(names):
        save_image(tmp_path / name, 50 * shade)
    images = ImageList(tmp_path, ["a", "b", "c", "d"], lambda image: image.getpixel((0, 0))[0])
    assert [images.path(row).name for row in range(4)] == names
    for shade, (value, index) in enumerate(images[row] for row in range(4)):
        assert abs(value - 50 * shade) <= 2 and index == shade


def test_looking_up_many_images_says_so(tmp_path: Path, capsys, monkeypatch, speaking) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    save_image(tmp_path / "a.jpg")
    images = ImageList(tmp_path, ["a", "b"])
    assert [file is not None for file in images.files()] == [True, False]
    assert "looking up images: 100%" in capsys.readouterr().err, "on a network file system it takes minutes"


def test_missing_folders_and_images_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such image folder.*datasets.build --dataset voc2007 --download"):
        ImageList(tmp_path / "voc2007" / "VOCtest_06-Nov-2007", ["000001"], None)
    with pytest.raises(DataError, match="NUS-WIDE.html"):
        ImageList(tmp_path / "nuswide" / "Flickr", ["actor/0001"], None)
    with pytest.raises(DataError, match=f"{tmp_path}: no image of the split file"):
        ImageList(tmp_path, ["000001"], None)
    save_image(tmp_path / "b.jpg")
    images = ImageList(tmp_path, ["a", "b", "x" * 300], image_transform(16))
    assert images[1][1] == 1
    for row in (0, 2):
        with pytest.raises(DataError, match=rf"{images.image_ids[row][:40]}.*no such image"):
            images[row]


def test_an_error_in_a_worker_process_stays_one_line() -> None:
    with pytest.raises(DataError) as caught:
        try:
            raise DataError("photos/b.jpg: the file is empty")
        except DataError:
            ExceptionWrapper(where="in DataLoader worker process 0").reraise()  # as DataLoader does
    assert str(caught.value) == "photos/b.jpg: the file is empty"


def test_find_unreadable_names_each_bad_image(tmp_path: Path) -> None:
    for name in ("a", "b", "d"):
        save_image(tmp_path / f"{name}.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:-200])
    (tmp_path / "e.jpg").write_bytes(b"")
    images = ImageList(tmp_path, ["a", "b", "c", "d", "e"], image_transform(16))
    found = find_unreadable(images, workers=3)
    assert [image_id for image_id, _ in found] == ["b", "c", "e"]
    assert all(f"{image_id}.jpg" in reason for image_id, reason in found)


@pytest.mark.parametrize("file, image_id, root", [
    ("VOC2012_train_val/VOC2012_train_val/JPEGImages/2007_000032.jpg", "2007_000032", "VOC2012_train_val"),
    ("VOC2012_train_val/JPEGImages/2007_000032.jpg", "2007_000032", "VOCtrainval_11-May-2012"),
    ("Flickr/0001_2124494179.jpg", "actor/0001_2124494179", "Flickr"),
    ("nuswide/images/0001_2124494179.jpg", "actor/0001_2124494179", "nuswide"),
])
def test_images_are_found_in_the_trees_of_common_copies(tmp_path, file, image_id, root):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    assert ImageList(tmp_path / root, [image_id]).path(0) == tmp_path / file


def test_a_folder_in_an_id_counts_but_for_nus_wide(tmp_path):
    (tmp_path / "dog.jpg").touch()
    with pytest.raises(DataError, match="no image of the split file"):
        ImageList(tmp_path, ["cats/dog"])
