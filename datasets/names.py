"""Class and background names in index order: the one place where they are written down."""
import re

from datasets.files import DataError, shorten

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table",
    "dog", "horse", "motor bike", "person", "potted plant", "sheep", "sofa", "train", "tvmonitor",
)
"""The 20 PASCAL VOC classes, alphabetical."""

COCO_CLASSES = (
    "person", "bicycle", "car", "motor bike", "aeroplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "sofa", "potted plant",
    "bed", "dining table", "toilet", "tvmonitor", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)
"""The 80 COCO classes in category-id order."""

NUS_CLASSES = (
    "airport", "animal", "beach", "bear", "birds", "boats", "book", "bridge", "buildings", "cars", "castle",
    "cat", "cityscape", "clouds", "computer", "coral", "cow", "dancing", "dog", "earthquake", "elk", "fire",
    "fish", "flags", "flowers", "food", "fox", "frost", "garden", "glacier", "grass", "harbor", "horses",
    "house", "lake", "leaf", "map", "military", "moon", "mountain", "nighttime", "ocean", "person", "plane",
    "plants", "police", "protest", "railroad", "rainbow", "reflection", "road", "rocks", "running", "sand",
    "sign", "sky", "snow", "soccer", "sports", "statue", "street", "sun", "sunset", "surf", "swimmers",
    "tattoo", "temple", "tiger", "tower", "town", "toy", "train", "tree", "valley", "vehicle", "water",
    "waterfall", "wedding", "whales", "window", "zebra",
)
"""The 81 NUS-WIDE concepts, alphabetical."""

VOC_COCO_BACKGROUNDS = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway",
    "snow", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley", "bridge", "room", "field",
)
"""The 24 backgrounds of the authors' VOC and COCO graphs."""

NUS_BACKGROUNDS = (
    "ground", "land", "building", "wall", "river", "cloud", "room", "field",
)
"""The 8 backgrounds of the authors' NUS-WIDE graph."""


MINI_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dog", "horse", "kite",
    "person", "potted plant", "sheep", "train", "umbrella",
)
"""The 18 classes of the embedded mini world, alphabetical."""

MINI_BACKGROUNDS = (
    "building", "cloud", "field", "grass", "mountain", "railway", "road", "room", "sand", "sky", "snow", "tree",
    "wall", "water",
)
"""The 14 backgrounds of the mini world."""

_PROMPT_WORDS = {"tvmonitor": "tv monitor", "motor bike": "motorbike", "railway": "railway track"}


def prompt_name(category: str) -> str:
    """The words that stand for `category` in a text prompt: "tvmonitor" is not a word that CLIP has read."""
    return _PROMPT_WORDS.get(category, category)


_NO_NAME = re.compile(r"""[#,;|\t\[\]{}] | ^".*"$ | ^'.*'$""", re.VERBOSE)


def listed_name(where: str, text: str) -> str:
    """A name as the user lists it, with single spaces.

    Args:
        where: the file with the line, or the flag; begins the error message.
        text: the line, or the word of the command line.

    Raises:
        DataError: it is a row of a table, a piece of JSON, a comment or in quotes.
    """
    if _NO_NAME.search(text):
        raise DataError(f"{where}: {shorten(text)} is no name; in a file stands a name a line, without commas, tabs, "
                        "quotes, brackets and comments")
    return " ".join(text.split())
