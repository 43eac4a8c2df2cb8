"""The steps before the first method: weights, images, split files, captions and the filter."""
from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from clip.clip import URLS
from datasets.build.command import PUBLISHED_SIZES
from datasets.captions.io import find_captions
from datasets.captions.label_files import CO_OCCURRENCE_FILE, COUNTS_FILE, LABELS_FILE, SCORES_FILE
from datasets.files import DataError
from datasets.progress import is_quiet
from datasets.registry import how_to_caption
from datasets.split_file import ImageList, read_image_ids
from engine.paper.request import PaperRequest
from engine.paper.steps import Step, Task

SPLITS = ("train", "val")
"""The training and the test images, as the flags call them."""

_GB = 10**9
DOWNLOADS: Dict[str, int] = {"voc2007": 2 * _GB, "voc2012": 4 * _GB, "coco2014": 40 * _GB, "mini": 25 * 10**6}
"""Bytes of the archives and what they unpack to (imageset/README.md), or of what is rendered."""
_WEIGHTS_BYTES = 351_000_000
"""Of OpenAI's ViT-B/16."""
_LABEL_FILES = (LABELS_FILE, SCORES_FILE, COUNTS_FILE, CO_OCCURRENCE_FILE)


def input_steps(request: PaperRequest) -> List[Step]:
    """Weights, images, split files, captions, and labels of them."""
    return [
        Step("weights", "CLIP weights", [_weights(request)]),
        Step("images", "Images", [_images(request)]),
        Step("split_files", "Split files", [_split_files(request)]),
        Step("captions", "Captions", [_captions(request)]),
        Step("filter", "Captions to labels", [_filter(request)]),
    ]


def fault_of(check: Callable[[], object]) -> Optional[str]:
    """What a check of the repository complains about, with its advice; None where all is well."""
    try:
        check()
    except DataError as error:
        return str(error)
    return None


def split_sizes(request: PaperRequest) -> Dict[str, int]:
    """Images by split: counted in the split file where it is there, else those of the complete originals."""
    return {split: _size(request, split) for split in SPLITS}


def _size(request: PaperRequest, split: str) -> int:
    path = split_file(request, split)
    if path.exists():
        return len(read_image_ids(path))
    return published_size(request, split) or 0


def published_size(request: PaperRequest, split: str) -> Optional[int]:
    """Images of the dataset's own split file of that name or, of another name, of its default one."""
    sizes = PUBLISHED_SIZES.get(request.spec.name, {})
    default = Path(getattr(request.spec, f"{split}_split_file"))
    names = (path.name.replace("difficult_negative_", "").replace("_cls.txt", "")
             for path in (split_file(request, split), default))
    return next((sizes[name] for name in names if name in sizes), None)


def split_file(request: PaperRequest, split: str) -> Path:
    """The file that lists a split."""
    return Path(getattr(request.train_args, f"{split}_split_file"))


def _is_own(request: PaperRequest, *flags: str) -> bool:
    """Whether one of the places is not the dataset's default, so that nothing is fetched to it."""
    return any(getattr(request.train_args, flag) != getattr(request.spec, flag) for flag in flags)


def _weights(request: PaperRequest) -> Task:
    path = Path(request.train_args.model_path)
    url = next((url for url in URLS.values() if url.endswith(f"/{path.name}")), None)
    command: Tuple[str, ...] = ()
    if url is not None:
        command = ("-c", "from engine.features.frozen_clip import fetch_weights; "
                         "from engine.process.entry_point import run_main; "  # an error is one line
                         f"run_main(lambda: fetch_weights({url!r}, {str(path.parent)!r}, quiet={is_quiet()}))")
    advice = (f"Get it with: curl -L --create-dirs -o {path} {url}" if url else
              "docs/weights.md says what --model_path takes")
    return Task(str(path), command, path.exists, advice, disk=_WEIGHTS_BYTES, unmeasured="download" if url else "")


def _images(request: PaperRequest) -> Task:
    spec, args = request.spec, request.train_args
    roots = dict.fromkeys((args.train_img_root, args.val_img_root))

    def check() -> None:
        for split in SPLITS:
            root, listed = getattr(args, f"{split}_img_root"), split_file(request, split)
            images = ImageList(root, read_image_ids(listed) if listed.exists() else [])
            for row in range(len(images)):
                images.path(row)  # raises for one that is missing
            if not len(images) and not any(Path(root).iterdir()):
                raise DataError(f"{root}: the folder is empty; get the images: {spec.get_images}")

    own = _is_own(request, "train_img_root", "val_img_root")
    command = () if own or not spec.get_images.startswith("python ") else tuple(spec.get_images.split()[1:])
    advice = f"Get them: {spec.get_images}" if not own else "Mend --train_img_root and --val_img_root"
    slow = "" if spec.name == "mini" else "download" if command else "by hand"
    return Task(f"images in {' and '.join(roots)}", command, lambda: fault_of(check) is None, advice,
                disk=DOWNLOADS.get(spec.name, 0), unmeasured=slow)


def _split_files(request: PaperRequest) -> Task:
    spec = request.spec
    paths = [split_file(request, split) for split in SPLITS]
    own = _is_own(request, "train_split_file", "val_split_file")
    command = () if own or not spec.get_split_files else tuple(spec.get_split_files.split()[1:])
    advice = f"Build it with: {spec.get_split_files}" if spec.get_split_files else "docs/own-data.md says how"
    return Task(" and ".join(map(str, paths)), command,
                lambda: fault_of(lambda: [read_image_ids(path) for path in paths]) is None, advice)


def _captions(request: PaperRequest) -> Task:
    spec, root = request.spec, request.train_args.caption_root
    # The embedded world's are made with its images.
    made_by = spec.get_captions or (spec.get_images if spec.name == "mini" else "")
    command: Tuple[str, ...] = ()
    if made_by:
        where = ("--caption_root", root) if "caption.py" in made_by else ()
        command = (*made_by.split()[1:], *where)
    return Task(f"captions in {root}/{spec.name}", command, lambda: find_captions(root, spec.name) is not None,
                f"Get them with {how_to_caption(spec.name)}. Shards for several GPUs: docs/captions.md",
                disk=10**6 * len(request.spec.classes), unmeasured="" if command else "captioning, which takes a GPU")


def _filter(request: PaperRequest) -> Task:
    root = request.train_args.caption_root
    folder = Path(root) / request.spec.name
    command = ("caption.py", "--dataset", request.args.dataset, "--caption_root", root, "--stage", "filter")
    return Task(f"labels in {folder}", command, lambda: all((folder / name).exists() for name in _LABEL_FILES))
