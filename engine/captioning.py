"""The captioning run: six captions and six re-captions of every training image, over days and machines."""
from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.captions.io import Captions, caption_paths
from datasets.captions.journal import Batch, Journal, Settings, check_settings, read_journal
from datasets.captions.prompts import first_prompts, re_prompts
from datasets.files import DataError, PathLike, counted, write_json
from datasets.filter.lexicon import SYNONYM_ROOT, load_lexicon
from datasets.filter.matcher import CategoryMatcher
from datasets.progress import bar
from datasets.registry import DatasetSpec, get_dataset
from datasets.split_file import ImageList, read_image_ids
from engine.features.readable_images import CHECKED, check_once
from engine.process.distributed import barrier, is_main, setup, world
from models.captioners.captioner import Captioner
from models.captioners.load_captioner import load_captioner

FindCategories = Callable[[Sequence[str]], Sequence[str]]
"""The six first captions of an image to the words for the categories in them."""


@dataclass(frozen=True)
class Shard:
    """One of the parts into which a captioning run is divided, on disk as a journal of its own."""

    index: int
    count: int

    def check(self) -> None:
        """Raises DataError where there is no such shard."""
        if not 0 <= self.index < self.count:
            raise DataError(f"--shard {self.index} of --num_shards {self.count}: shards are numbered from 0 to "
                            f"{self.count - 1}")

    def batches(self, num_images: int, batch_size: int) -> List[List[int]]:
        """Image indices of the shard's batches. Every `count`-th batch belongs to it, so that images share a batch,
        and with it the rounding of its arithmetic, with the same others however many shards there are."""
        starts = range(self.index * batch_size, num_images, self.count * batch_size)
        return [list(range(start, min(start + batch_size, num_images))) for start in starts]

    def journal_path(self, caption_root: PathLike, dataset: str) -> Path:
        """Where the journal of this shard lies."""
        return Path(caption_root) / dataset / f"{dataset}_captions.shard{self.index}of{self.count}.jsonl"


def run_settings(dataset: str, image_ids: Sequence[str], captioner: Captioner, captioner_name: str, model_type: str,
                 batch_size: int) -> Settings:
    """What decides about the captions of a run; it goes into the journal and the metadata, and cannot change between
    the parts of a run. The batch size is among it since half precision rounds differently in other batches."""
    return {
        "dataset": dataset,
        "images": len(image_ids),
        "images_sha256": _digest(image_ids),
        "captioner": captioner_name,
        "model_type": model_type,
        "library": captioner.library,
        "precision": str(captioner.dtype).replace("torch.", ""),
        "caption_batch_size": batch_size,
        "prompts": list(map(captioner.question, first_prompts())),
        "re_caption_prompts": list(map(captioner.question, re_prompts(["X", "Y", "Z"]))),
        "decoding": captioner.decoding,
    }


def _digest(image_ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(image_ids).encode()).hexdigest()


def category_finder(spec: DatasetSpec, synonym_root: PathLike = SYNONYM_ROOT) -> FindCategories:
    """Finds categories as the filter does; their words for a prompt come in index order."""
    words = spec.prompt_names(spec.categories)
    matcher = CategoryMatcher(load_lexicon(spec, synonym_root))

    def find_categories(captions: Sequence[str]) -> List[str]:
        found = {category for caption in captions for category in matcher.name_categories(caption)}
        return [words[category] for category in sorted(found)]

    return find_categories


def caption_images(captioner: Captioner, images: ImageList, find_categories: FindCategories, settings: Settings,
                   caption_root: PathLike, shard: Shard, num_workers: int = 0) -> Dict[str, str]:
    """Caption the images of a shard that its journal lacks; each finished batch is on disk before the next begins.

    Args:
        captioner: the model.
        images: all images of the run, in the order of its split file, as PIL images.
        find_categories: what the re-captions are to leave out.
        settings: see `run_settings`.
        caption_root: where the files go.
        shard: the part to be captioned.
        num_workers: processes that read images.

    Returns:
        image id to the reason of each image of the shard that cannot be read.

    Raises:
        DataError: the journal there belongs to another run, or there are caption files without any journal.
    """
    _spare_other_files(caption_root, settings["dataset"])
    journal = Journal(shard.journal_path(caption_root, settings["dataset"]), settings)
    batches = shard.batches(len(images), settings["caption_batch_size"])
    todo = [[index for index in batch if images.image_ids[index] not in journal.captioned] for batch in batches]
    loader = DataLoader(_ImagesOrReasons(images, captioner.transform), num_workers=num_workers, collate_fn=_collate,
                        batch_sampler=[batch for batch in todo if batch])
    total = sum(map(len, batches))
    unreadable: Dict[str, str] = {}
    with bar("captioning", "image", total, total - sum(map(len, todo))) as shown:
        for loaded in loader:
            batch = _caption_batch(captioner, images.image_ids, loaded, find_categories)
            journal.append(batch)
            unreadable.update(batch.unreadable)
            shown.update(len(batch.captions) + len(batch.unreadable))
    journal.close()
    return unreadable


class _ImagesOrReasons(Dataset):
    """Item `i` is `(i, transform(image))`, or `(i, reason)` for an image that cannot be read."""

    def __init__(self, images: ImageList, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tuple[int, Union[Tensor, str]]:
        try:
            return index, self.transform(self.images[index][0])
        except DataError as error:
            return index, str(error)


class _Loaded(NamedTuple):
    """A batch as it comes from the loader."""

    indices: List[int]
    images: List[Tensor]
    """As the captioner's transform makes them, one for each of `indices`; none where no image can be read."""
    reasons: Dict[int, str]
    """Index of each image that cannot be read to the reason."""


def _collate(items: Sequence[Tuple[int, Union[Tensor, str]]]) -> _Loaded:
    images = {index: item for index, item in items if isinstance(item, Tensor)}
    return _Loaded(list(images), list(images.values()),
                   {index: item for index, item in items if isinstance(item, str)})


def _caption_batch(captioner: Captioner, image_ids: Sequence[str], loaded: _Loaded,
                   find_categories: FindCategories) -> Batch:
    unreadable = {image_ids[index]: reason for index, reason in loaded.reasons.items()}
    if not loaded.images:
        return Batch({}, {}, unreadable)
    queries = captioner.encode(loaded.images)
    captions = captioner.answer(queries, [first_prompts()] * len(queries))
    re_captions = captioner.answer(queries, [re_prompts(find_categories(texts)) for texts in captions])
    ids = [image_ids[index] for index in loaded.indices]
    return Batch(dict(zip(ids, captions)), dict(zip(ids, re_captions)), unreadable)


def _spare_other_files(caption_root: PathLike, dataset: str) -> None:
    """Caption files without a journal beside them were fetched or come from elsewhere: do not write over them."""
    path = caption_paths(caption_root, dataset).first
    if path.exists() and not any(path.parent.glob(f"{dataset}_captions.shard*.jsonl")):
        raise DataError(f"{path}: this file is there already, and no journal of a captioning run beside it; move it "
                        "away or give another --caption_root")


def merge_shards(caption_root: PathLike, dataset: str, image_ids: Sequence[str], num_shards: int) -> Dict[str, str]:
    """Make the caption files from the journals of all shards, and `<dataset>_captions.meta.json` beside them.

    Args:
        caption_root: where the journals are and the files go.
        dataset: its name.
        image_ids: the images in the order of the split file, which is that of the caption files.
        num_shards: how many shards there are.

    Returns:
        image id to the reason of each image that could not be read; the caption files are without them.

    Raises:
        DataError: a shard is missing or unfinished, or shards belong to different runs.
    """
    captions: Captions = {}
    re_captions: Captions = {}
    unreadable: Dict[str, str] = {}
    shared: Settings = {}
    for index in range(num_shards):
        path = Shard(index, num_shards).journal_path(caption_root, dataset)
        settings, batches = read_journal(path)
        shared = shared or {**settings, "images": len(image_ids), "images_sha256": _digest(image_ids)}
        check_settings(path, settings, shared)
        for batch in batches:
            captions.update(batch.captions)
            re_captions.update(batch.re_captions)
            unreadable.update(batch.unreadable)
    paths = caption_paths(caption_root, dataset)
    left = [image_id for image_id in image_ids if image_id not in captions and image_id not in unreadable]
    if left:
        raise DataError(f"{paths.first}: {len(left)} of {counted(len(image_ids), 'image')} without captions so far, "
                        f"the first is {left[0]!r}; let the captioning run finish (shards: {num_shards})")
    captioned = [image_id for image_id in image_ids if image_id in captions]
    write_json(paths.first, {image_id: captions[image_id] for image_id in captioned})
    write_json(paths.re, {image_id: re_captions[image_id] for image_id in captioned})
    missing = {image_id: unreadable[image_id] for image_id in image_ids if image_id not in captions}
    write_json(paths.first.with_suffix(".meta.json"), {**shared, "unreadable": missing}, indent=1)
    return missing


def caption_stage(args: argparse.Namespace) -> Dict[str, str]:
    """Stages `caption` and `all`: caption one shard; where it is the only one, write the caption files too.

    Under `torchrun` each process captions a shard, and the main one writes the files of all when they are done.

    Returns:
        image id to the reason of each image that could not be read; of several processes the main one has all.

    Raises:
        DataError: see `caption_images`; or a flag, the split file, the image folder or the model is at fault; or an
            image cannot be read, and `--skip_unreadable` was not given.
    """
    spec = get_dataset(args.dataset)
    device = setup(args.device)
    shard = _own_shard(args)
    if args.stage == "all" and shard.count > 1:
        raise DataError("--stage all captions in one part; with --num_shards take the stages caption, merge and "
                        "filter, with torchrun caption and filter")
    if args.caption_batch_size < 1:
        raise DataError(f"--caption_batch_size {args.caption_batch_size}: a batch has at least 1 image")
    images = ImageList(args.train_img_root or spec.train_img_root, _image_ids(args))
    if not args.skip_unreadable:
        reasons = check_once(images, Path(args.feature_root) / CHECKED, args.num_workers)
        if reasons:
            raise DataError(f"{len(reasons):,} of {counted(len(images), 'image')} cannot be read (listed above); mend "
                            "them, or go on without them by --skip_unreadable")
    captioner = load_captioner(args.captioner, args.model_type, device, args.precision)
    settings = run_settings(spec.name, images.image_ids, captioner, args.captioner, args.model_type,
                            args.caption_batch_size)
    unreadable = caption_images(captioner, images, category_finder(spec, args.synonym_root), settings,
                                args.caption_root, shard, args.num_workers)
    if shard.count == world().size:
        barrier()
        return merge_stage(args, shard.count) if is_main() else {}
    print(f"Shard {shard.index} of {shard.count} is done. When all are, make the caption files with "
          f"`--stage merge --num_shards {shard.count}`")
    return unreadable


def _own_shard(args: argparse.Namespace) -> Shard:
    """The part that this process captions, by the flags or, under `torchrun`, by its place among all.

    Raises:
        DataError: there is no such shard, or both say one.
    """
    rank, size = world()
    if size > 1 and (args.num_shards, args.shard) != (1, 0):
        raise DataError("--num_shards and --shard do nothing with torchrun, whose processes are the shards; leave them "
                        "out")
    shard = Shard(rank, size) if size > 1 else Shard(args.shard, args.num_shards)
    shard.check()
    return shard


def merge_stage(args: argparse.Namespace, num_shards: Optional[int] = None) -> Dict[str, str]:
    """`--stage merge`: see `merge_shards`. The shards are `--num_shards` where nothing else says it."""
    image_ids = _image_ids(args)
    name = get_dataset(args.dataset).name
    unreadable = merge_shards(args.caption_root, name, image_ids, num_shards or args.num_shards)
    print(f"{Path(args.caption_root) / name}: captions of {counted(len(image_ids) - len(unreadable), 'image')}")
    return unreadable


def _image_ids(args: argparse.Namespace) -> List[str]:
    return read_image_ids(args.train_split_file or get_dataset(args.dataset).train_split_file)
