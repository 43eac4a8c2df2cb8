"""From nothing to the paper's tables on one dataset: all steps, in order, by the scripts that do them alone.

    python reproduce.py --dataset voc2007 --plan       what is there, what is missing; the disk and the time of it
    python reproduce.py --dataset voc2007              what is missing; the same command goes on after a stop
    python reproduce.py --dataset coco2014 --gpus 4 --skip cdul
    python reproduce.py --dataset mini                 the embedded world: nothing to download

After each step the number found is set beside the one to expect. The end is in --output_dir: tables beside the
paper's, figures, report.html, and an archive to share, without images and checkpoints. Flags that say where data are
and how they are read go to all steps: --train_img_root, --train_split_file, --val_img_root, --val_split_file,
--model_path, --activation, --caption_root, --feature_root, --patch_dtype, --precision, --encode_batch_size,
--skip_unreadable, --num_workers and --device.
"""
from typing import List

from engine.paper.findings import compare, keep
from engine.paper.inputs import input_steps
from engine.paper.methods import Sizes, method_steps
from engine.paper.outputs import write_outputs
from engine.paper.plan import write_plan
from engine.paper.request import PaperRequest, read_request
from engine.paper.speed import frozen_clip, measure_speeds
from engine.paper.steps import Step, run_steps
from engine.paper.waypoints import Finding
from engine.process.distributed import get_device
from engine.process.entry_point import run_main


def main() -> None:
    request = read_request(__doc__)
    if request.args.plan:
        show_plan(request)
    else:
        reproduce(request)


def show_plan(request: PaperRequest) -> None:
    """Look at what is there, measure this machine for a few seconds, and say what all steps take."""
    model, known_weights = frozen_clip(request, get_device(request.train_args.device))
    visual = model.visual
    sizes = Sizes(request, model.embed_dim, visual.patch_size, visual.input_resolution)
    steps = [*input_steps(request), *method_steps(request, sizes)]
    speeds = measure_speeds(request, model, with_resnet=any(step.name == "cdul" for step in steps))
    print(write_plan(request, steps, speeds, known_weights))


def reproduce(request: PaperRequest) -> None:
    """Do what is missing, compare what each step gave with what to expect, and write the outputs."""
    request.keep()
    findings: List[Finding] = []

    def after(step: Step) -> None:
        for finding in compare(request, step.name):
            findings.append(finding)
            print("\n".join(f"  {line}" for line in finding.lines()), flush=True)
        keep(request, findings)

    run_steps([*input_steps(request), *method_steps(request)], request.folder, request.args.gpus, after)
    for path in write_outputs(request, findings):
        print(path)
    far = [finding for finding in findings if not finding.is_near]
    print(f"{len(findings) - len(far)} of {len(findings)} numbers are as expected" + "".join(
        f"\n{line}" for finding in far for line in finding.lines()))


if __name__ == "__main__":
    run_main(main)
