"""Evaluate a method on a test split; make tables and figures of finished runs; tag photos.

    python eval.py --checkpoint runs/voc2007/checkpoint.pth             BAC-GCN, CDUL or TaI-DPT, as it was trained
    python eval.py --method clip --dataset voc2007                      CLIP zero-shot
    python eval.py --method clip --dataset voc2007 --prompts ensemble --raw_cosine
    python eval.py --method tagclip --dataset voc2007                   TagCLIP, at native size
    python eval.py --method sparc --dataset voc2007                     SPARC, by statistics of the test images
    python eval.py --method cdul --dataset voc2007                      CDUL's initialisation

Writes per-class AP as per_class_METHOD.csv and the scores of all images as scores.npz beside the checkpoint, or into
--output_dir; their names end in _on_DATASET_SPLIT for another split than the run's own. Without a checkpoint the
config.json and result.json that tables are collected from go there too.

    python eval.py --checkpoint runs/voc2007/checkpoint.pth --dataset voc2012      another split of the same categories

    python eval.py --table main --runs runs/*                           the paper's numbers beside ours
    python eval.py --table ablation --runs runs/ablation/mini           components; also choices and hyper
    python eval.py --figure curves --runs runs/mini                     mAP per epoch, with and without ReSO
    python eval.py --figure maps --checkpoint runs/mini/checkpoint.pth --image photo.jpg --categories dog car grass
    python eval.py --image photo.jpg --checkpoint runs/mini/checkpoint.pth
    python eval.py --image photos/ --method clip --words dog cat "red car" --csv tags.csv --html tags.html

Tables are written as Markdown, LaTeX and CSV, figures as PDF and PNG.
"""
import csv

from datasets.files import DataError, atomic_write
from datasets.registry import get_dataset
from engine.command_line.eval_flags import check_mode, get_eval_parser, mode_of
from engine.evaluation.evaluation_flags import Request, read_request
from engine.evaluation.evaluation_set import load_evaluation_set
from engine.evaluation.metrics import average_precision, summarise
from engine.evaluation.scores_file import save_scores
from engine.methods.method_scores import score_images, score_training_images, write_result
from engine.methods.tag_threshold import tag_threshold
from engine.pictures.figure_data import FIGURES, draw_figure, save_curves
from engine.process.distributed import is_main, setup
from engine.process.entry_point import run_main
from engine.process.reproducibility import seed_everything
from engine.results.paper_tables import TABLES, write_table
from engine.results.tables import NO_MAP, format_table
from engine.tagging.photo_tags import tag_photos


def main() -> None:
    parser = get_eval_parser(__doc__, TABLES, FIGURES)
    given = parser.parse_args()
    mode = mode_of(given)
    if mode in ("table", "curves"):
        check_mode(given, parser.typed())
    if mode == "table":
        print(write_table(given.table, given.runs, given.output_dir or "runs/tables", not given.no_nested))
    elif mode == "curves":
        save_curves(given.runs, given.output_dir or "runs/figures", not given.no_nested)
    elif mode == "evaluation":
        evaluate(read_request(parser))
    else:
        request = read_request(parser)
        draw = tag_photos if mode == "tags" else draw_figure
        draw(request.args, request.trained, given.output_dir or request.folder / "figures")


def evaluate(request: Request) -> None:
    """Score the test images, write per-class AP, and print the metrics."""
    args, trained, folder = request
    if trained is None and (folder / "checkpoint.pth").exists():
        raise DataError(f"{folder}: holds the results of a training run; choose another --output_dir, or evaluate its "
                        "--checkpoint")
    spec, device = get_dataset(args.dataset), setup(args.device)
    seed_everything(0, device)
    test = load_evaluation_set(args, spec, device, trained)
    scored = score_images(test, trained)
    threshold = tag_threshold(test, trained, lambda sample: score_training_images(sample, trained))
    if not is_main():
        return

    per_class = average_precision(scored.scores, test.targets, args.min_positives)
    tags = scored.tags(threshold.value)
    summary = summarise(scored.scores, test.targets, tags, args.min_positives)
    rows = [(name, f"{ap:.2f}", str(int(positives))) for name, ap, positives
            in zip(spec.classes, per_class, test.targets.sum(dim=0))]
    if summary:
        with atomic_write(folder / f"per_class_{args.method}{request.suffix}.csv") as file:
            csv.writer(file).writerows([("class", "AP", "positives"), *rows])
    another = trained is not None and args.method != trained["args"]["method"]  # CLIP, on a checkpoint's weights
    save_scores(folder / f"scores{f'_{args.method}' if another else ''}{request.suffix}.npz", test.images.image_ids,
                spec.classes, scored.scores, test.targets if summary else None)
    if trained is None:
        write_result(folder, test, summary, threshold.value)
    if not summary:
        tagged = [(name, f"{count:,}") for name, count in zip(spec.classes, tags.sum(dim=0).tolist())]
        print(format_table(("class", f"tagged, of {len(tags):,}"), tagged))
        print(threshold)
        print(NO_MAP)
        return
    print(format_table(("class", "AP", "positives"), rows))
    print(threshold)
    print("  ".join(f"{name} {value:.2f}" for name, value in summary.items() if name != "mAP"))
    print(f"{len(test.images):,} {request.test_images}")
    print(f"mAP {summary['mAP']}")


if __name__ == "__main__":
    run_main(main)
