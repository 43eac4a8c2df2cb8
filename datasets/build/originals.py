"""Read the original annotations of VOC, COCO and NUS-WIDE as splits."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Set
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
import numpy as np

from datasets.files import DataError, PathLike, counted, read_json, read_lines, shorten
from datasets.names import COCO_CLASSES, NUS_CLASSES, VOC_CLASSES
from datasets.registry import DATASETS
from datasets.split_file import Split, check_image_id

_COCO_NAMES = {"motorcycle": "motor bike", "airplane": "aeroplane", "couch": "sofa", "tv": "tvmonitor"}
"""Class names that COCO's annotations spell otherwise than `datasets.names`."""

_UNPACK_AGAIN = "unpack the original archive again"


class Original(NamedTuple):
    """One list of a dataset's originals with its labels."""

    name: str
    split: Split
    left_out: str
    """What of the originals is not in the split, in words; empty if everything is."""


def read_voc(data_root: PathLike, year: int, source: str = "Main", difficult: str = "positive") -> List[Original]:
    """Read PASCAL VOC: each list (train, val, trainval, test) that is there.

    Args:
        data_root: a folder with VOC trees (`Annotations`, `ImageSets`) below it, as the archives unpack.
        year: 2007 or 2012.
        source: folder of the lists, 'Main' or 'Segmentation'. Labels come from the bounding boxes in both.
        difficult: 'positive': an object marked difficult makes its class a label; 'negative': it does not.

    Raises:
        DataError: no VOC tree, or a list or annotation that cannot be read.
    """
    trees = _voc_trees(Path(data_root), year)
    originals = []
    for name in ("train", "val", "trainval", "test"):
        lists = [tree / "ImageSets" / source / f"{name}.txt" for tree in trees]
        image_list = next((path for path in lists if path.is_file()), None)
        if image_list is None:
            continue
        if year == 2012 and name == "test" and not _is_annotated(image_list, trees):
            originals.append(Original(name, Split([], []), "VOC2012's test images are without annotations"))
        else:
            originals.append(_read_voc_list(image_list, name, trees, difficult))
    if not originals:
        other = {"Segmentation": "Main", "Main": "Segmentation"}.get(source, "")
        if year == 2012 and any((tree / "ImageSets" / other / "train.txt").is_file() for tree in trees):
            raise DataError(f"{trees[0] / 'ImageSets' / source}: no list is here, but in {other} there are; add "
                            f"--split_source {other.lower()}")
        raise DataError(f"{trees[0] / 'ImageSets' / source}: no list is here (train.txt, ...); {_UNPACK_AGAIN}")
    return originals


def _is_annotated(image_list: Path, trees: Sequence[Path]) -> bool:
    """Whether an annotation of every image of a list is there."""
    return all(any((tree / "Annotations" / f"{line.split()[0]}.xml").is_file() for tree in trees)
               for _, line in read_lines(image_list))


def _read_voc_list(image_list: Path, name: str, trees: Sequence[Path], difficult: str) -> Original:
    image_ids, labels, dropped = [], [], 0
    for number, line in read_lines(image_list):
        image_id = line.replace("\t", " ").partition(" ")[0]
        check_image_id(f"{image_list}:{number}", image_id)
        paths = [tree / "Annotations" / f"{image_id}.xml" for tree in trees]
        classes, difficult_only = read_voc_xml(next((path for path in paths if path.is_file()), paths[0]))
        if difficult == "positive":
            classes = sorted(classes + difficult_only)
        else:
            dropped += len(difficult_only)
        image_ids.append(image_id)
        labels.append(classes)
    if not image_ids:
        raise DataError(f"{image_list}: the list is empty; {_UNPACK_AGAIN}")
    left_out = f"{counted(dropped, 'label')} that only difficult objects would give" if dropped else ""
    return Original(name, Split(image_ids, labels), left_out)


def _voc_trees(data_root: Path, year: int) -> List[Path]:
    patterns = ("*", "*/*", f"VOCdevkit/VOC{year}", f"*/VOC{year}", f"*/VOCdevkit/VOC{year}")
    candidates = [data_root, *(path for pattern in patterns for path in sorted(data_root.glob(pattern)))]
    trees = [path for path in dict.fromkeys(candidates) if (path / "ImageSets").is_dir()]
    if not any((path / "Annotations").is_dir() for path in trees):
        raise DataError(f"{data_root}: no folder with VOC's Annotations and ImageSets is here; get the originals: "
                        f"{DATASETS[f'voc{year}'].get_images}")
    return trees


class VocLabels(NamedTuple):
    """The classes of one annotation, ascending."""

    classes: List[int]
    """Classes with an object that is not marked difficult."""
    difficult_only: List[int]
    """Classes of which every object is marked difficult."""


def read_voc_xml(path: PathLike) -> VocLabels:
    """Read the classes of one VOC annotation. Entity declarations, which can blow up a parser, are refused.

    Raises:
        DataError: the file is missing, is no VOC annotation, or names an unknown class.
    """
    try:
        root = defusedxml.ElementTree.parse(str(path)).getroot()
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation; {_UNPACK_AGAIN}") from None
    except ParseError as error:
        raise DataError(f"{path}:{error.position[0]}: not valid XML ({error}); {_UNPACK_AGAIN}") from None
    except (OSError, ValueError, LookupError) as error:  # defusedxml's refusals are ValueErrors
        raise DataError(f"{path}: XML refused ({error}); {_UNPACK_AGAIN}") from None
    if root.tag != "annotation":
        raise DataError(f"{path}: the root element is {shorten(root.tag)}, so this is no VOC annotation")
    easy: Set[int] = set()
    hard: Set[int] = set()
    for item in root.findall("object"):
        name = _letters(item.findtext("name") or "")
        if name not in _VOC_INDEX:
            raise DataError(f"{path}: object {shorten(item.findtext('name') or '')} is no VOC class")
        difficult = (item.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise DataError(f"{path}: an object has <difficult> {shorten(difficult)}, not 0 or 1")
        (hard if difficult == "1" else easy).add(_VOC_INDEX[name])
    return VocLabels(sorted(easy), sorted(hard - easy))


def _letters(name: str) -> str:
    """The letters alone, so that 'motorbike', 'motor bike' and 'Motor-Bike' are one class."""
    return "".join(character for character in name.lower() if character.isalpha())


_VOC_INDEX = {_letters(name): position for position, name in enumerate(VOC_CLASSES)}


def read_coco(data_root: PathLike) -> List[Original]:
    """Read `train` and `val` of COCO2014: the images with at least one box, in the order of their ids.

    Args:
        data_root: the folder that holds `annotations/instances_{train,val}2014.json`.

    Raises:
        DataError: a file is missing or is no COCO instances file of the 80 classes.
    """
    paths = {name: Path(data_root) / "annotations" / f"instances_{name}2014.json" for name in ("train", "val")}
    return [read_coco_instances(path, name) for name, path in paths.items()]


def read_coco_instances(path: PathLike, name: str) -> Original:
    """Read one instances file; crowd regions count as labels, as in the lists of other groups.

    Raises:
        DataError: the file is missing or is no COCO instances file of the 80 classes.
    """
    content = read_json(path, missing=f"Get the originals: {DATASETS['coco2014'].get_images}")
    try:
        names = {_integer(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        file_names = {_integer(entry["id"]): str(entry["file_name"]) for entry in content["images"]}
        pairs = {(_integer(entry["image_id"]), _integer(entry["category_id"])) for entry in content["annotations"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: no COCO instances file ({shorten(str(error))} is missing or wrong); "
                        f"{_UNPACK_AGAIN}") from None
    index = _coco_index(path, names)
    labels: Dict[int, List[int]] = {}
    for image, category in sorted(pairs):
        if image not in file_names or category not in index:
            raise DataError(f"{path}: a box of image {image} and category {category}, but the file lists no such "
                            f"{'category' if image in file_names else 'image'}; {_UNPACK_AGAIN}")
        labels.setdefault(image, []).append(index[category])
    if not labels:
        raise DataError(f"{path}: no image has a box; {_UNPACK_AGAIN}")
    image_ids = [file_names[image].rsplit(".", 1)[0] for image in labels]
    dropped = len(file_names) - len(labels)
    left_out = f"{counted(dropped, 'image')} without a label" if dropped else ""
    return Original(name, Split(image_ids, list(labels.values())), left_out)


def _coco_index(path: PathLike, names: Dict[int, str]) -> Dict[int, int]:
    """Category id (1 to 90, with gaps) to class index (0 to 79), once the names are ours in the order of the ids."""
    category_ids = sorted(names)
    found = [_COCO_NAMES.get(names[category_id], names[category_id]) for category_id in category_ids]
    if len(found) != len(COCO_CLASSES):
        raise DataError(f"{path}: {counted(len(found), 'category')} instead of {len(COCO_CLASSES)}; is this COCO?")
    for position, (ours, theirs) in enumerate(zip(COCO_CLASSES, found)):
        if ours != theirs:
            raise DataError(f"{path}: category {position} is {shorten(theirs)} instead of {ours!r}; is this COCO?")
    return {category_id: position for position, category_id in enumerate(category_ids)}


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"id {value}")
    return value


def read_nuswide(data_root: PathLike, unlabelled: str = "keep") -> List[Original]:
    """Read the official lists `train` and `test` of NUS-WIDE, in their order.

    Args:
        data_root: the folder of `ImageList/` and `TrainTestLabels/` (also found under `Groundtruth/`).
        unlabelled: 'keep' or 'drop' the images that show none of the 81 concepts.

    Raises:
        DataError: a list or a label file is missing, damaged, or of another length than its list.
    """
    originals = []
    for name in ("train", "test"):
        image_list = _find_nus(Path(data_root), f"ImageList/{name.title()}Imagelist.txt")
        image_ids = read_nus_list(image_list)
        present = np.zeros((len(image_ids), len(NUS_CLASSES)), dtype=bool)
        for column, concept in enumerate(NUS_CLASSES):
            path = _find_nus(Path(data_root), f"TrainTestLabels/Labels_{concept}_{name.title()}.txt")
            values = read_nus_labels(path)
            if len(values) != len(image_ids):
                raise DataError(f"{path}: {counted(len(values), 'label')}, but {image_list} names "
                                f"{counted(len(image_ids), 'image')}; take both from one copy")
            present[:, column] = values
        kept = np.flatnonzero(present.any(axis=1)) if unlabelled == "drop" else np.arange(len(image_ids))
        dropped = len(image_ids) - len(kept)
        left_out = f"{counted(dropped, 'image')} without a label" if dropped else ""
        labels = [np.flatnonzero(present[row]).tolist() for row in kept]
        originals.append(Original(name, Split([image_ids[row] for row in kept], labels), left_out))
    return originals


def read_nus_list(path: PathLike) -> List[str]:
    r"""Image ids of a NUS-WIDE list: `C:\ImageData\Flickr\actor\0001_2124494179.jpg` -> `actor/0001_2124494179`.

    Raises:
        DataError: the list is missing or empty, or a line is no path of an image.
    """
    image_ids = []
    for number, line in read_lines(path):
        image_id = "/".join(line.strip().replace("\\", "/").split("/")[-2:]).rsplit(".", 1)[0]
        check_image_id(f"{path}:{number}", image_id)
        image_ids.append(image_id)
    if not image_ids:
        raise DataError(f"{path}: the list is empty; {_UNPACK_AGAIN}")
    return image_ids


def read_nus_labels(path: PathLike) -> List[bool]:
    """One concept's labels, a 0 or a 1 a line in the order of the list.

    Raises:
        DataError: the file is missing, or a line is neither.
    """
    values = []
    for number, line in read_lines(path):
        value = line.strip()
        if value not in ("0", "1"):
            raise DataError(f"{path}:{number}: {shorten(value)} instead of 0 or 1; {_UNPACK_AGAIN}")
        values.append(value == "1")
    return values


def _find_nus(data_root: Path, name: str) -> Path:
    """The file `name`, with or without its own folder, in `data_root` or in a folder of it (`Groundtruth/`)."""
    file = name.rsplit("/", 1)[-1]
    for pattern in (name, f"*/{name}", file, f"*/{file}"):
        for path in sorted(data_root.glob(pattern)):
            return path
    raise DataError(f"{data_root / name}: no such file; unpack NUS-WIDE's image list and ground truth in {data_root} "
                    f"({DATASETS['nuswide'].get_images})")
