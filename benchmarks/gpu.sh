#!/usr/bin/env bash
# What there is to check and to measure on a GPU, as Markdown, in under six minutes:
#     bash benchmarks/gpu.sh > gpu.md
#     DEVICE=cpu TINY=1 bash benchmarks/gpu.sh        # tries the script itself out, in a minute
# PYTHON has PyTorch and what requirements.txt names; LAVIS, transformers and open_clip are left out where they are not.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
device=${DEVICE:-cuda}

missing=$("$python" - <<'PYTHON'
import importlib.util
names = ("torch", "torchvision", "numpy", "PIL", "ftfy", "regex", "tqdm", "filelock", "sklearn", "scipy", "safetensors")
print(" ".join(name for name in names if importlib.util.find_spec(name) is None))
PYTHON
)
if [ -n "$missing" ]; then
    echo "error: $python lacks $missing; \`pip install\` them, or name another interpreter as PYTHON" >&2
    exit 2
fi
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >&2
exec timeout "${SECONDS_AT_MOST:-350}" "$python" -m benchmarks.gpu --device "$device" ${TINY:+--tiny}
