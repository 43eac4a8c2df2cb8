"""All benchmarks, as Markdown.

    make bench
    python -m benchmarks.run [--device cuda]
"""
from __future__ import annotations

from benchmarks import encode, step, store
from datasets.flag_parser import FlagParser


def main() -> None:
    parser = FlagParser(__doc__)
    parser.add_argument("--device", help="cuda, cuda:1 or cpu (default: cuda where there is one)")
    parser.add_argument("--batch_size", type=int, default=16, help="images a pass of the encoder")
    parser.add_argument("--rounds", type=int, default=7, help="of the encoder's")
    args = parser.parse_args()
    device = ["--device", args.device] if args.device else []
    sizes = ["--batch_size", str(args.batch_size), "--rounds", str(args.rounds)]
    print(store.main(device), flush=True)  # before the encoder, whose memory would hide the store's
    print(encode.main([*device, *sizes, "--compile"]), flush=True)
    print(step.main(device), flush=True)


if __name__ == "__main__":
    main()
