"""Where the seconds of an epoch go."""
from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Dict, Iterator, Mapping

PARTS = ("mining", "encoding", "evaluation")
"""What an epoch does beside training: ReSO cuts its crops, encodes them, and the test images are scored."""


class Stopwatch:
    """The seconds of one epoch's parts, each a field of its own in log.txt.

    A run that was stopped within the epoch counts what it does since it went on, no part of what was done before.
    """

    def __init__(self) -> None:
        self._seconds: Dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time to `name`: "training", or one of `PARTS`."""
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def timing(self, images: int) -> Dict[str, float]:
        """`seconds` of training alone, `images_per_second` by them, and `PART_seconds` of each part that there was.

        Args:
            images: trained on in the measured time.
        """
        training = self._seconds["training"]
        return {"seconds": training, "images_per_second": images / training,
                **{f"{part}_seconds": self._seconds[part] for part in PARTS if part in self._seconds}}


def describe_timing(timing: Mapping[str, float]) -> str:
    """What `Stopwatch.timing` returned, for a line on the screen."""
    parts = "".join(f"  {part} {timing[f'{part}_seconds']:.1f} s" for part in PARTS if f"{part}_seconds" in timing)
    return f"{timing['seconds']:.1f} s  {timing['images_per_second']:.0f} images/s{parts}"
