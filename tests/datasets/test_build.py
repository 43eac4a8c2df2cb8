"""Split files out of the original annotations: real formats in small, and everything that can be wrong with them."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.build import archives, command
from datasets.build.originals import (
    read_coco_instances,
    read_nus_labels,
    read_nus_list,
    read_nuswide,
    read_voc,
    read_voc_xml,
)
from datasets.files import DataError
from datasets.names import COCO_CLASSES, NUS_CLASSES, VOC_CLASSES
from datasets.registry import DATASETS
from datasets.split_file import read_split_file

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGESET = REPOSITORY.parent / "shared" / "data" / "imageset"

Objects = List[Tuple[str, int]]
"""(class name, difficult) of each object."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def run_build(dataset: str, data_root: Path, output_root: Path, *flags: str) -> int:
    roots = ["--data_root", str(data_root), "--output_root", str(output_root)]
    return command.main(["--dataset", dataset, *roots, *flags])


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def voc_xml(objects: Objects) -> str:
    """An annotation as VOC writes it, with the parts of a person that VOC2012 has."""
    items = "".join(f"""
    <object>
        <name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>{difficult}</difficult>
        <bndbox><xmin>53</xmin><ymin>87</ymin><xmax>471</xmax><ymax>420</ymax></bndbox>
        <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
    </object>""" for name, difficult in objects)
    return f"<annotation>\n    <folder>VOC2007</folder><filename>a.jpg</filename>{items}\n</annotation>\n"


def put_voc(tree: Path, lists: Dict[str, Dict[str, Objects]], source: str = "Main") -> None:
    for name, images in lists.items():
        put(tree / "ImageSets" / source / f"{name}.txt", "".join(f"{image_id}\n" for image_id in images))
        for image_id, objects in images.items():
            put(tree / "Annotations" / f"{image_id}.xml", voc_xml(objects))


TRAIN = {"000012": [("car", 0)], "000017": [("person", 0), ("horse", 1), ("person", 1)]}
VAL = {"000005": [("chair", 1), ("chair", 0)], "000007": [("tvmonitor", 1)], "000009": []}
TEST = {"000001": [("motorbike", 0), ("pottedplant", 0), ("diningtable", 1)]}


@pytest.fixture()
def voc2007(tmp_path: Path) -> Path:
    """The two archives of VOC2007, unpacked into a folder each."""
    root = tmp_path / "voc2007"
    put_voc(root / "VOCtrainval_06-Nov-2007/VOCdevkit/VOC2007", {"train": TRAIN, "val": VAL})
    put_voc(root / "VOCtrainval_06-Nov-2007/VOCdevkit/VOC2007", {"trainval": {**TRAIN, **VAL}})
    put_voc(root / "VOCtest_06-Nov-2007/VOCdevkit/VOC2007", {"test": TEST})
    return root


def index(*names: str) -> List[int]:
    return sorted(VOC_CLASSES.index(name) for name in names)


def test_voc_writes_every_list(voc2007: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "imageset"
    assert run_build("voc2007", voc2007, out) == 0
    assert sorted(path.name for path in (out / "voc2007").iterdir()) == [
        "test_cls.txt", "train_cls.txt", "trainval_cls.txt", "val_cls.txt"]
    trainval = read_split_file(out / "voc2007/trainval_cls.txt", 20)
    assert trainval.image_ids == [*TRAIN, *VAL]
    assert trainval.labels == [index("car"), index("horse", "person"), index("chair"), index("tvmonitor"), []]
    test = read_split_file(out / "voc2007/test_cls.txt", 20)
    assert test.labels == [index("motor bike", "potted plant", "dining table")]
    printed = capsys.readouterr().out
    assert f"{out / 'voc2007/trainval_cls.txt'}\n  5 images, 1 of them without a label\n  5 positives; " in printed
    assert "the complete originals give 5,011 images" in printed and "left out" not in printed


def test_difficult_objects_as_negatives(voc2007: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "imageset"
    assert run_build("voc2007", voc2007, out, "--difficult", "negative") == 0
    val = read_split_file(out / "voc2007/difficult_negative_val_cls.txt", 20)
    assert val.labels == [index("chair"), [], []]  # an easy chair beside the difficult one; the monitor is difficult
    assert read_split_file(out / "voc2007/difficult_negative_train_cls.txt", 20).labels[1] == index("person")
    assert "left out: 1 label that only difficult objects would give" in capsys.readouterr().out


def test_a_missing_test_archive_is_pointed_out(voc2007: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (voc2007 / "VOCtest_06-Nov-2007").rename(tmp_path / "elsewhere")
    assert run_build("voc2007", voc2007, tmp_path / "out") == 0
    assert "no test list is here: unpack http" in capsys.readouterr().out


def test_voc2012_takes_the_lists_that_it_is_told(tmp_path: Path) -> None:
    tree = tmp_path / "VOCtrainval_11-May-2012" / "VOCdevkit" / "VOC2012"
    put_voc(tree, {"train": TRAIN, "val": VAL}, "Segmentation")
    put_voc(tree, {"train": VAL, "val": TRAIN, "trainval": {**VAL, **TRAIN}})
    for flags in ([], ["--split_source", "main"]):
        assert run_build("voc2012", tmp_path, tmp_path, *flags) == 0
    ids = {path.name: read_split_file(path, 20).image_ids for path in (tmp_path / "voc2012").iterdir()}
    assert ids == {"train_cls.txt": [*TRAIN], "val_cls.txt": [*VAL], "main_train_cls.txt": [*VAL],
                   "main_val_cls.txt": [*TRAIN], "main_trainval_cls.txt": [*VAL, *TRAIN]}


def test_the_authors_voc2012_tree_and_a_test_list_without_annotations(tmp_path: Path, capsys) -> None:
    put_voc(tmp_path / "VOC2012_train_val" / "VOC2012_train_val", {"train": TRAIN, "val": VAL}, "Segmentation")
    put(tmp_path / "VOC2012_test" / "VOC2012_test" / "ImageSets" / "Segmentation" / "test.txt", "2008_000001\n")
    assert run_build("voc2012", tmp_path, tmp_path) == 0
    assert sorted(path.name for path in (tmp_path / "voc2012").iterdir()) == ["train_cls.txt", "val_cls.txt"]
    assert "test_cls.txt: not written; VOC2012's test images are without annotations" in capsys.readouterr().out


def test_every_voc_class_is_known_by_its_name_in_the_xml(tmp_path: Path) -> None:
    names = [
        "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
        "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ]
    assert read_voc_xml(put(tmp_path / "all.xml", voc_xml([(name, 0) for name in names]))).classes == list(range(20))
    others = [("Motor Bike", 0), ("potted-plant", 0), ("tv/monitor", 1)]
    assert read_voc_xml(put(tmp_path / "b.xml", voc_xml(others))) == (index("motor bike", "potted plant"), [19])


BILLION_LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><annotation>&b;</annotation>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'


@pytest.mark.parametrize(("text", "words"), [
    (BILLION_LAUGHS, "refused"), (EXTERNAL, "refused"),
    ("", "not valid XML"), ("<annotation><object>", "not valid XML"), ("<html/>", "no VOC annotation"),
    ("<?xml version='1.0' encoding='klingon'?><annotation/>", "XML"),
    (voc_xml([("zebra", 0)]), "'zebra' is no VOC class"), (voc_xml([("car", 7)]), "'7', not 0 or 1"),
    ("<annotation><object><difficult>0</difficult></object></annotation>", "no VOC class"),
])
def test_bad_xml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = put(tmp_path / "a.xml", text)
    with pytest.raises(DataError) as caught:
        read_voc_xml(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and words in message and "root:" not in message


def test_voc_faults_name_the_file(voc2007: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--dataset voc2012 --download"):
        read_voc(tmp_path / "nothing", 2012)
    tree = voc2007 / "VOCtrainval_06-Nov-2007/VOCdevkit/VOC2007"
    (tree / "Annotations/000012.xml").unlink()
    with pytest.raises(DataError, match=r"000012.xml: no such annotation"):
        read_voc(voc2007, 2007)
    put(tree / "ImageSets/Main/train.txt", "000017\n../../000012\n")
    with pytest.raises(DataError, match=r"train.txt:2: .*out of the image folder"):
        read_voc(voc2007, 2007)
    put(tree / "ImageSets/Main/train.txt", "")
    with pytest.raises(DataError, match=r"train.txt: the list is empty"):
        read_voc(voc2007, 2007)
    with pytest.raises(DataError, match="no list is here"):
        read_voc(voc2007, 2007, "Segmentation")


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.tuples(st.integers(0, 500), st.integers(0, 255))))
def test_xml_fuzz(folder: Path, damage: Any) -> None:
    content = bytearray(voc_xml([("car", 0), ("horse", 1)]).encode())
    if isinstance(damage, bytes):
        content = bytearray(damage)
    else:
        content[damage[0]] = damage[1]
    path = folder / "a.xml"
    path.write_bytes(content)
    try:
        read_voc_xml(path)
    except DataError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


def coco(annotations: List[Tuple[int, int]], images: Tuple[int, ...] = (9, 25, 30)) -> Dict[str, Any]:
    """An instances file with COCO's category ids (1 to 90 with gaps) and spellings."""
    ids = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    spelling = {"motor bike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "tvmonitor": "tv"}
    return {
        "info": {"year": 2014},
        "images": [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "width": 640} for i in images],
        "annotations": [{"id": n, "image_id": image, "category_id": category, "iscrowd": n % 2, "bbox": [1, 2, 3, 4]}
                        for n, (image, category) in enumerate(annotations)],
        "categories": [{"id": i, "name": spelling.get(name, name), "supercategory": "x"}
                       for i, name in zip(ids, COCO_CLASSES)][::-1],
    }


def test_coco(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    boxes = [(30, 64), (9, 51), (9, 56), (9, 51), (9, 55), (30, 86)]
    for name in ("train", "val"):
        put(tmp_path / f"annotations/instances_{name}2014.json", json.dumps(coco(boxes)))
    assert run_build("coco2014", tmp_path, tmp_path) == 0
    # the labels of these two images in the lists that other groups use
    assert (tmp_path / "coco2014/train_cls.txt").read_text() == (
        "COCO_train2014_000000000009 45 49 50\nCOCO_train2014_000000000030 58 75\n")
    assert "left out: 1 image without a label" in capsys.readouterr().out


def broken(**changes: Any) -> Dict[str, Any]:
    return {**coco([(9, 51)]), **changes}


@pytest.mark.parametrize(("content", "words"), [
    ([], "no COCO instances file"), ({}, "'categories"), (broken(images=None), "no COCO"),
    (broken(images=[{"id": 9}]), "file_name"), (broken(annotations=[{"image_id": "9", "category_id": 1}]), "id 9"),
    (broken(annotations=[{"image_id": True, "category_id": 1}]), "id True"),
    (coco([(10, 51)]), "no such image"), (coco([(9, 12)]), "no such category"),
    (broken(categories=coco([])["categories"][1:]), "79 categories"),
    (broken(categories=[{**entry, "name": "car"} for entry in coco([])["categories"]]), "instead of 'person'"),
])
def test_bad_coco_files_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    path = put(tmp_path / "instances_train2014.json", json.dumps(content))
    with pytest.raises(DataError) as caught:
        read_coco_instances(path, "train")
    assert str(caught.value).startswith(str(path)) and words in str(caught.value)


@pytest.mark.parametrize("file_name", ["../../evil.jpg", "/evil.jpg", "\ud800.jpg", "a\nb.jpg", ""])
def test_coco_file_names_must_be_ids(tmp_path: Path, capsys: pytest.CaptureFixture, file_name: str) -> None:
    content = broken(images=[{"id": 9, "file_name": file_name}])
    put(tmp_path / "annotations/instances_train2014.json", json.dumps(content))
    put(tmp_path / "annotations/instances_val2014.json", json.dumps(content))
    assert run_build("coco2014", tmp_path, tmp_path) == 2
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "coco2014/train_cls.txt").exists()


KEY = st.sampled_from(["id", "name", "images", "file_name", "category_id", "x"])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3), max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["images", "annotations", "categories"]), JSON), JSON)
def test_coco_fuzz(folder: Path, parts: Dict[str, Any], whole: Any) -> None:
    path = folder / "a.json"
    for content in (broken(**parts), whole):
        path.write_text(json.dumps(content))
        try:
            read_coco_instances(path, "train")
        except DataError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)


NUS_TRAIN = {"actor\\0001_2124494179.jpg": ["person"], "zebra\\0100_11.jpg": ["animal", "zebra"],
             "sky\\0002_5.jpg": []}
NUS_TEST = {"actor\\0002_174174086.jpg": ["sky", "clouds"]}


def put_nus(root: Path, labels: str = "TrainTestLabels", prefix: str = "", end: str = "\n") -> None:
    for name, images in (("Train", NUS_TRAIN), ("Test", NUS_TEST)):
        put(root / f"ImageList/{name}Imagelist.txt", "".join(f"{prefix}{file}{end}" for file in images))
        for concept in NUS_CLASSES:
            column = "".join(f"{int(concept in present)}{end}" for present in images.values())
            put(root / f"{labels}/Labels_{concept}_{name}.txt", column)


@pytest.mark.parametrize(("labels", "prefix", "end"), [
    ("TrainTestLabels", "", "\n"), ("Groundtruth/TrainTestLabels", "", " \r\n"),
    ("Groundtruth", "C:\\ImageData\\Flickr\\", "\r\n"),
])
def test_nuswide(tmp_path: Path, labels: str, prefix: str, end: str) -> None:
    put_nus(tmp_path, labels, prefix, end)
    assert run_build("nuswide", tmp_path, tmp_path) == 0
    zebra, animal, person = (NUS_CLASSES.index(name) for name in ("zebra", "animal", "person"))
    assert (tmp_path / "nuswide/train_cls.txt").read_text() == (
        f"actor/0001_2124494179 {person}\nzebra/0100_11 {animal} {zebra}\nsky/0002_5\n")
    assert read_split_file(tmp_path / "nuswide/test_cls.txt", 81).image_ids == ["actor/0002_174174086"]


def test_nuswide_without_its_unlabelled_images(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    put_nus(tmp_path)
    assert run_build("nuswide", tmp_path, tmp_path, "--unlabelled", "drop") == 0
    split = read_split_file(tmp_path / "nuswide/labelled_train_cls.txt", 81)
    assert split.image_ids == ["actor/0001_2124494179", "zebra/0100_11"]
    assert "left out: 1 image without a label" in capsys.readouterr().out


def test_nuswide_faults_name_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="TrainImagelist.txt: no such file.*NUS-WIDE.html"):
        read_nuswide(tmp_path)
    put_nus(tmp_path)
    column = tmp_path / "TrainTestLabels/Labels_zebra_Train.txt"
    for text, words in (("0\n1\n", "2 labels, but .* names 3 images"), ("0\n1\n2\n", r":3: '2' instead of 0 or 1"),
                        ("0 1\n0\n", r":1: '0 1' instead"), ("", "0 labels")):
        put(column, text)
        with pytest.raises(DataError, match=rf"Labels_zebra_Train.txt.*{words}"):
            read_nuswide(tmp_path)
    column.unlink()
    with pytest.raises(DataError, match=r"Labels_zebra_Train.txt: no such file"):
        read_nuswide(tmp_path)
    with pytest.raises(DataError, match=r"list.txt:2: .*control"):
        read_nus_list(put(tmp_path / "list.txt", "a\\b.jpg\na\tb.jpg\n"))
    with pytest.raises(DataError, match="empty"):
        read_nus_list(put(tmp_path / "list.txt", "\n"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40) | st.text("01 \\/.:aC\r\n\ufeff\x85", max_size=30).map(str.encode))
def test_nus_fuzz(folder: Path, content: bytes) -> None:
    path = folder / "list.txt"
    path.write_bytes(content)
    for read in (read_nus_list, read_nus_labels):
        try:
            read(path)
        except DataError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)


@pytest.mark.parametrize("flags", [
    ["--dataset", "coco2014", "--difficult", "negative"], ["--dataset", "voc2007", "--split_source", "main"],
    ["--dataset", "voc2012", "--unlabelled", "drop"], ["--dataset", "nuswide", "--download"],
    ["--dataset", "imagenet"],
])
def test_flags_of_another_dataset_are_refused(flags: List[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(flags)
    assert caught.value.code == 2 and "error: " in capsys.readouterr().err


def test_the_command_reports_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "datasets.build", "--dataset", "voc2007", "--data_root", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path}: ") and done.stderr.count("\n") == 1
    assert "python -m datasets.build --dataset voc2007 --download" in done.stderr


def test_the_registry_reads_what_the_builder_writes() -> None:
    for name, sizes in command.PUBLISHED_SIZES.items():
        for path in (DATASETS[name].train_split_file, DATASETS[name].val_split_file):
            assert path in [f"imageset/{name}/{part}_cls.txt" for part in sizes]
    for name in ("voc2007", "voc2012"):
        roots = {DATASETS[name].train_img_root, DATASETS[name].val_img_root}
        assert {f"data/{name}/{entry.folder}" for entry in archives.archives(name)} == roots


@pytest.mark.skipif(not IMAGESET.is_dir(), reason="../shared/data/imageset is not here")
def test_published_sizes_are_those_of_the_real_lists() -> None:
    for path in IMAGESET.glob("*/*_cls.txt"):
        size = command.PUBLISHED_SIZES[path.parent.name][path.name[:-len("_cls.txt")]]
        assert sum(1 for _ in path.open()) == size
