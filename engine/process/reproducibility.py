"""What makes a run repeatable: seeds, and the commit of the code."""
from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Optional

import numpy as np
import torch


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed every generator. On CPU the same seed gives the same weights bit for bit."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)


def git_revision() -> Optional[str]:
    """Commit of the code, with "-dirty" where files differ from it; None outside a checkout."""
    try:
        return subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
                              cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
