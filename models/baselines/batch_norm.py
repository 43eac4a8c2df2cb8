"""Batch normalisation over the batch of all processes, on any device (`nn.SyncBatchNorm` runs on GPUs alone)."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of the whole batch, of which each process has a part, maybe an empty one."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W); in training, all processes have to call it together."""
        if not self.training:
            return super().forward(images)
        count = images.new_tensor([images.numel() / images.shape[1]])
        *sums, number = all_reduce(torch.cat([images.sum(dim=(0, 2, 3)), count]))
        number = number.detach()
        centred = images - (mean := torch.stack(sums) / number)[:, None, None]
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / number
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * number / (number - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None])


def share_batch_norm(network: nn.Module) -> None:
    """Make every `nn.BatchNorm2d` of a network a `SharedBatchNorm2d`, in place and with its weights."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared.to(child.weight.device))
