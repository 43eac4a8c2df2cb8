"""Where the time of a training step goes, and how it grows with the categories.

    python -m benchmarks.step [--batch_size 64] [--rounds 15] [--device cuda]
"""
from __future__ import annotations

import argparse
import statistics
from typing import Callable, Dict, List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import machine, side_by_side, table
from datasets.flag_parser import FlagParser
from engine.process.distributed import get_device
from models.bac_gcn import BACGCN
from models.encoder import Features
from models.gcn import CLIPGCN
from models.graph import node_adjacency
from models.losses import pseudo_label_loss
from models.reso import small_regions

DIM, GRID = 512, (14, 14)


class Step:
    """BAC-GCN with the default flags on random features of a ViT-B/16, one batch at a time."""

    def __init__(self, categories: int, batch_size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        classes = categories * 4 // 5
        text = F.normalize(torch.randn(categories, DIM), dim=-1)
        adjacency = node_adjacency(torch.rand(categories, categories) * 0.1, classes, num_globals=2)
        self.model = BACGCN(text, 4, CLIPGCN(DIM, adjacency, 512)).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3)
        self.features = Features(torch.randn(batch_size, GRID[0] * GRID[1], DIM, device=device),
                                 torch.randn(batch_size, 2, DIM, device=device))
        self.targets = torch.rand(batch_size, categories, device=device).pow(8)
        self.positive = self.targets[:, :classes] > 0.5
        self.nodes = torch.randn(batch_size, 2 + categories, DIM, device=device)

    def forward(self, in_bf16: bool = False) -> Tensor:
        """The loss, by products in fp32 or, as with `--step_precision bf16`, in bf16."""
        with torch.autocast(self.targets.device.type, torch.bfloat16, enabled=in_bf16):
            logits = self.model(*self.features).logits
        return pseudo_label_loss(logits.float(), self.targets)

    @torch.inference_mode(False)
    def backward(self, in_bf16: bool = False) -> None:
        """Forward and backward."""
        with torch.enable_grad():
            self.optimizer.zero_grad()
            self.forward(in_bf16).backward()

    @torch.inference_mode(False)
    def whole(self, in_bf16: bool = False) -> None:
        """All of the step."""
        self.backward(in_bf16)
        self.optimizer.step()

    def parts(self) -> Dict[str, Callable[[], object]]:
        """What is timed on its own."""
        gcn = self.model.gcn
        assert gcn is not None
        return {"step": self.whole, "step in bf16": lambda: self.whole(in_bf16=True),
                "forward and backward": self.backward, "forward": self.forward,
                "kernel (forward)": lambda: self.model.kernel(self.features.patch_embeddings),
                "GCN (forward)": lambda: gcn(self.nodes),
                "optimiser": self.optimizer.step, "ReSO's regions": self.mine}

    def mine(self) -> List[object]:
        """The small regions of the batch."""
        maps = self.model.kernel(self.features.patch_embeddings).maps
        return list(small_regions(maps, self.positive, GRID, 0.7, 0.1, 0.3))


def time_parts(args: argparse.Namespace, device: torch.device) -> str:
    """Parts of a step with COCO's 104 categories."""
    times = side_by_side(Step(104, args.batch_size, device).parts(), args.rounds, device)
    medians = {name: statistics.median(values) for name, values in times.items()}
    medians["backward"] = medians["forward and backward"] - medians["forward"]
    order = ("step", "step in bf16", "forward", "kernel (forward)", "GCN (forward)", "backward", "optimiser",
             "ReSO's regions")
    return table(("part", "ms a batch", "share of the step"), [
        (name, f"{1000 * medians[name]:.1f}", f"{medians[name] / medians['step']:.0%}") for name in order])


def grow_categories(args: argparse.Namespace, device: torch.device, counts: List[int]) -> str:
    """A step by the number of categories O."""
    times = side_by_side({str(count): Step(count, args.batch_size, device).whole for count in counts},
                         args.rounds, device)
    medians = [statistics.median(times[str(count)]) for count in counts]
    return table(("categories", "images/s", "time / first", "time a category / first"), [
        (str(count), f"{args.batch_size / seconds:.0f}", f"{seconds / medians[0]:.2f}",
         f"{seconds / medians[0] * counts[0] / count:.2f}") for count, seconds in zip(counts, medians)])


def main(argv: Optional[List[str]] = None) -> str:
    parser = FlagParser(__doc__)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    device = get_device(args.device)
    return f"""### Training step

{machine(device)}, batches of {args.batch_size}, medians of {args.rounds} rounds in turns

{time_parts(args, device)}
{grow_categories(args, device, [44, 89, 104, 208, 416])}"""


if __name__ == "__main__":
    print(main())
