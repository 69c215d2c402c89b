"""Every kind of benchmark, on tiny files in its real format, through the command line with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_folders import fsc147, fscd_lvis, lvis, roboflow100

from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.config import Config, for_benchmark, override, save
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import Evaluation, EvaluationReport, by_task, log_summary, summarize
from trex2_lightning.metrics.counting import CountingMetric
from trex2_lightning.training import trainer
from trex2_lightning.training.build import build_module
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]
EVAL = Path(__file__).parents[2] / "experiments" / "eval"


def saved(config: Config, folder: Path) -> Path:
    torch.manual_seed(0)
    (folder / "checkpoints").mkdir(parents=True)
    save(config, folder / "config.yaml")
    path = folder / "checkpoints" / "last.ckpt"
    module = build_module(config)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def evaluated(checkpoint: Path, benchmark: str, root: Path, *others: str) -> dict[str, Any]:
    evaluate_command(["--ckpt", str(checkpoint), str(EVAL / f"{benchmark}.yaml"), f"data.root={root}", *others])
    protocols = others[1::2] if others[:1] == ("--protocol",) else ()
    folder = output(checkpoint, "-".join([benchmark, *protocols]))
    written: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return written


def output(checkpoint: Path, benchmark: str) -> Path:
    return checkpoint.parent.parent / "eval" / benchmark


def test_lvis_gives_both_aps_by_frequency_and_the_challenge_s_file(visual_checkpoint: Path, tmp_path: Path) -> None:
    lvis(tmp_path)
    written = evaluated(visual_checkpoint, "lvis_val", tmp_path, "--protocol", "text", "--protocol", "generic")
    assert {"ap", "ap50", "ap75", "aps", "fixed_ap", "fixed_ap50"} <= written.keys()
    for metric in ("ap", "fixed_ap"):
        assert written[metric]["text"].keys() == {"all", "rare", "common", "frequent"}
        assert written[metric].keys() == {"text", "generic_1"}
    results = json.loads((output(visual_checkpoint, "lvis_val-text-generic") / "results_text.json").read_text())
    assert results[0].keys() == {"image_id", "category_id", "bbox", "score"}
    assert {item["category_id"] for item in results} == {0, 1, 2}


def test_tasks_have_their_own_names_and_are_summed_up(
    visual_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roboflow100(tmp_path / "rf100")
    written = evaluated(visual_checkpoint, "roboflow100", tmp_path / "rf100")
    rows = {"text", "interactive_box", "interactive_point", "generic_1", "mixed"}
    assert written["num_tasks"] == 2
    assert written["ap"].keys() == rows
    assert written["ap"]["text"].keys() == {"mean", "median"}
    assert written["tasks"].keys() == {"cells", "signs"}
    assert written["tasks"]["signs"]["ap"].keys() == rows
    assert (output(visual_checkpoint, "roboflow100") / "cells" / "results_mixed.json").is_file()
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("cells", "signs", "mean", "median"))


def test_a_task_may_have_a_val_split_of_its_own(visual_checkpoint: Path, tmp_path: Path) -> None:
    roboflow100(tmp_path / "data")
    (tmp_path / "data" / "signs" / "train").rename(tmp_path / "data" / "signs" / "dev")
    file = tmp_path / "some.yaml"
    file.write_text(
        "data: {format: roboflow, val: {annotations: train/_annotations.coco.json, images: train}}\n"
        "eval: {tasks: {cells: {}, signs: {val: {annotations: dev/_annotations.coco.json, images: dev}}}}\n"
    )
    root = tmp_path / "data"
    evaluate_command(
        ["--ckpt", str(visual_checkpoint), str(file), f"data.root={root}", "--split", "val", "--protocol", "text"]
    )
    written = json.loads((output(visual_checkpoint, "some-val-text") / "evaluation.json").read_text())
    assert written["tasks"].keys() == {"cells", "signs"}


def test_missing_tasks_are_named_before_the_first_one_begins(visual_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"26 annotation files of the 13 tasks are missing, such as .*AerialMaritimeDrone/large"
    ):
        evaluated(visual_checkpoint, "odinw13", tmp_path)
    with pytest.raises(InputError, match=r"gone: has no folders of tasks; set data.root="):
        evaluated(visual_checkpoint, "roboflow100", tmp_path / "gone")


def test_mean_and_median_over_tasks() -> None:
    def report(**aps: float) -> EvaluationReport:
        return EvaluationReport({row: Evaluation({"ap": ap}, [], {}) for row, ap in aps.items()}, {}, None)  # type: ignore[arg-type]

    reports = {"a": report(text=0.1, mixed=0.5), "b": report(text=0.2), "c": report(text=0.6, mixed=0.1)}
    summary = summarize(reports)
    assert summary["ap"]["text"] == pytest.approx({"mean": 0.3, "median": 0.2})
    assert summary["ap"]["mixed"] == pytest.approx({"mean": 0.3, "median": 0.3})
    assert by_task(reports, "ap") == {
        "ap": {"a": {"text": 0.1, "mixed": 0.5}, "b": {"text": 0.2}, "c": {"text": 0.6, "mixed": 0.1}}
    }


def test_a_group_s_figures_have_a_row_of_their_own_over_tasks() -> None:
    def report(novel: float, base: float) -> EvaluationReport:
        figures = {"ap": 0.5, "ap/base": base, "ap/novel": novel}
        return EvaluationReport({"generic_10": Evaluation(figures, [], {})}, {}, None)  # type: ignore[arg-type]

    reports = {"seed0": report(0.1, 0.4), "seed1": report(0.3, 0.6)}
    summary = summarize(reports)["ap"]
    assert summary.keys() == {"generic_10", "generic_10/base", "generic_10/novel"}
    assert summary["generic_10/novel"]["mean"] == pytest.approx(0.2)
    assert by_task(reports, "ap")["ap"]["seed1"] == {"generic_10": 0.5, "generic_10/base": 0.6, "generic_10/novel": 0.3}


def test_fsc147_counts_test_by_the_threshold_of_val(
    visual_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsc147(tmp_path)
    figures: list[dict[str, float]] = []
    compute = CountingMetric.compute
    monkeypatch.setattr(CountingMetric, "compute", lambda metric: figures.append(compute(metric)) or figures[-1])
    written = evaluated(visual_checkpoint, "fsc147", tmp_path)
    val, test = figures
    assert (val["mae"], val["threshold"]) == (0, test["threshold"])
    assert written["threshold"]["exemplars"]["all"] == pytest.approx(val["threshold"], abs=1e-4)
    assert written["mae"]["exemplars"]["all"] == pytest.approx(test["mae"], abs=1e-4)
    assert {"rmse", "nae", "sre", "ap", "ap50"} <= written.keys()


def test_fscd_lvis_gives_ap_from_exemplars(visual_checkpoint: Path, tmp_path: Path) -> None:
    fscd_lvis(tmp_path)
    written = evaluated(visual_checkpoint, "fscd_lvis", tmp_path)
    assert written["ap"].keys() == {"exemplars"}
    assert "mae" not in written


def test_coco_with_regions(visual_checkpoint: Path, tiny_coco: Path) -> None:
    files = [f"data.{key}={{annotations: test.json, images: test}}" for key in ("test", "reference")]
    written = evaluated(visual_checkpoint, "coco", tiny_coco, *files)
    assert list(written["ap"]) == ["text", "interactive_box", "interactive_point", "generic_1", "mixed"]
    assert written["top5"]["region_classification"]["all"] == 1
    assert written["ground_truth"] == str(tiny_coco / "test.json")


def test_a_checkpoint_of_text_alone_is_asked_with_text_alone(
    tiny_config: TinyConfig, tiny_coco: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config()
    config.eval.protocols = ["text", "generic"]
    report = evaluate(config, build_module(config), "test")
    assert list(report.rows) == ["text"]
    assert "trained with text alone: generic left out" in caplog.text
    report = evaluate(config, build_module(config), "test", ["generic", "random_phrases"])
    assert list(report.rows) == ["random_phrases"]
    config.eval.protocols = ["exemplars"]
    with pytest.raises(
        InputError, match=r"trained with text alone, .*exemplars cannot be evaluated: take one of stage 2"
    ):
        evaluate(config, build_module(config), "test")
    config.eval.protocols = ["tekst"]
    with pytest.raises(InputError, match=r"eval\.protocols: tekst is none of text, "):
        evaluate(config, build_module(config), "test")
    with pytest.raises(InputError, match=r"^protocols: tekst is none of text, "):
        evaluate(config, build_module(config), "test", ["tekst"])
    with pytest.raises(InputError, match=r"trained with text alone, .*generic cannot be evaluated"):
        evaluate(config, build_module(config), "test", ["generic"])


def test_exemplars_are_those_of_the_data_set(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.rhythm.visual=1")
    with pytest.raises(InputError, match=r"test\.json: its images have no exemplars"):
        evaluate(config, build_module(config), "test", ["exemplars"])


@pytest.mark.parametrize(("metric", "needed"), [("lvis", "which categories they judge"), ("counting", "how many")])
def test_a_metric_wants_its_data(tiny_config: TinyConfig, metric: str, needed: str) -> None:
    config = tiny_config(f"eval.metric={metric}")
    with pytest.raises(InputError, match=f"eval.metric={metric} needs images that say {needed}.*data.format=coco"):
        evaluate(config, build_module(config), "val", ["text"])


def test_the_figures_go_to_wandb(monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig, tmp_path: Path) -> None:
    made: list[Any] = []

    class Logger:
        def __init__(self, **settings: Any) -> None:
            self.settings, self.logged, self.finished = settings, {}, False
            self.experiment = self
            made.append(self)

        def log_metrics(self, metrics: dict[str, float]) -> None:
            self.logged = metrics

        def finish(self) -> None:
            self.finished = True

    monkeypatch.setattr(trainer, "WandbLogger", Logger)
    summary = {"ap": {"text": {"all": 0.25, "rare": 0.5}}}
    log_summary(tiny_config(), tmp_path, summary)
    assert made == []
    log_summary(tiny_config("logging.wandb=offline"), tmp_path, summary)
    assert made[0].logged == {"ap/text/all": 0.25, "ap/text/rare": 0.5}
    assert (made[0].settings["job_type"], made[0].settings["save_dir"]) == ("evaluation", tmp_path)
    assert made[0].finished
    log_summary(tiny_config("logging.wandb=offline"), tmp_path, summary, "lvis_val")
    assert made[1].logged == {"lvis_val/ap/text/all": 0.25, "lvis_val/ap/text/rare": 0.5}


def test_an_evaluation_file_gives_data_and_protocols_and_leaves_the_rest(tiny_config: TinyConfig) -> None:
    trained = tiny_config("eval={batch_size: 3, group: novel, aggregation: best, references: [2], max_detections: 9}")
    config = for_benchmark(trained, EVAL / "lvis_minival.yaml")
    assert (config.data.root, config.data.format, config.eval.metric) == ("", "lvis", "lvis")
    assert config.data.test.annotations.endswith("lvis_v1_minival_inserted_image_name.json")
    assert config.data.reference.annotations.endswith("lvis_v1_train.json")
    assert (config.eval.group, config.eval.aggregation, config.eval.max_detections) == ("", "mean", 1000)
    assert (config.data.size, config.eval.batch_size, config.model) == (trained.data.size, 3, trained.model)


def test_a_detector_of_several_sets_is_evaluated_on_every_benchmark(tiny_config: TinyConfig, tmp_path: Path) -> None:
    """What it was trained on is no data of the benchmark's."""
    sets = ["data.sets={one: {annotations: a.json, images: a, text: 1, visual: 1}}", "train.rhythm.visual=1"]
    others = ["data.nameless.share=0.5", "eval.references=[1]"]
    trained = tiny_config(*sets, *others)
    for file in EVAL.glob("*.yaml"):
        data = for_benchmark(trained, file).data
        assert (data.sets, data.limit, data.nameless.share) == ({}, 0, 0)
    assert for_benchmark(tiny_config("data.limit=3"), EVAL / "coco.yaml").data.limit == 0
    lvis(tmp_path)
    written = evaluated(saved(trained, tmp_path / "run"), "lvis_val", tmp_path)
    assert written["ap"].keys() == {"text", "interactive_box", "interactive_point", "generic_1", "mixed"}


def test_generic_prompts_of_several_sets_want_references_before_anything_is_evaluated(
    tiny_config: TinyConfig, tiny_coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`data.train` may be a file that is there, but it is none of what the run was trained on."""
    begun: list[str] = []
    monkeypatch.setattr(DetectionModule, "on_test_epoch_start", lambda module: begun.append("test"))
    sets = ["data.sets={one: {annotations: train.json, images: train, visual: 1, text: 1}}", "train.rhythm.visual=1"]
    config = tiny_config(*sets, "eval.references=[1]")
    assert (tiny_coco / config.data.train.annotations).is_file()
    with pytest.raises(InputError, match=r"no data\.train .*give data\.reference\.annotations=FILE .*--protocol text"):
        evaluate(config, build_module(config), "test", ["text", "generic"])
    assert begun == []
    monkeypatch.undo()
    config = override(config, ["data.reference={annotations: train.json, images: train}"])
    assert list(evaluate(config, build_module(config), "test", ["text", "generic"]).rows) == ["text", "generic_1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {width: 64}", "model is the checkpoint's; an evaluation file has data and eval alone"),
        ("eval: {metrics: lvis}", "eval.metrics: Key 'metrics' not in 'EvalConfig'. Did you mean: 'metric'?"),
        ("eval: {metric: bleu}", "eval.metric: "),
        ("eval: {tasks: {a: {folders: x}}}", "folders"),
    ],
)
def test_wrong_evaluation_files(tiny_config: TinyConfig, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(InputError) as error:
        for_benchmark(tiny_config(), tmp_path / "x.yaml")
    assert message in str(error.value)


def test_a_benchmark_needs_its_folder(visual_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"coco.yaml needs the benchmark's folder: add data.root=FOLDER"):
        evaluate_command(["--ckpt", str(visual_checkpoint), str(EVAL / "coco.yaml")])
    with pytest.raises(InputError, match=r"no experiment file nowhere\.yaml"):
        evaluate_command(["--ckpt", str(visual_checkpoint), "nowhere.yaml"])


def test_a_set_of_one_category_is_asked_for_foreign_phrases_and_not_for_its_names_in_another_order(
    tiny_config: TinyConfig, tiny_coco: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((path := tiny_coco / "test.json").read_text())
    annotations = [item | {"category_id": content["categories"][0]["id"]} for item in content["annotations"]]
    path.write_text(json.dumps(content | {"categories": content["categories"][:1], "annotations": annotations}))
    config = tiny_config()
    assert list(evaluate(config, build_module(config), "test").rows) == ["text", "foreign_phrases"]
    assert "random_phrases left out" in caplog.text
    with pytest.raises(InputError, match=r"test\.json: its names do not allow random_phrases: ask with text too"):
        evaluate(config, build_module(config), "test", ["random_phrases"])
