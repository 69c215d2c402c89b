"""Every experiment file resolves to a detector that builds, without downloads, and T-Rex2's values are the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trex2_lightning.config import Config, check_harmless, for_benchmark, load
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.text import ClipEncoder
from trex2_lightning.models.weights import pixel_statistics
from trex2_lightning.prompting.protocol_names import OWN_EXEMPLARS, PROTOCOLS
from trex2_lightning.structures import IMAGENET_PIXELS, PixelStatistics

CELLS = [f"{granularity}_{fusion}" for granularity in ("phrase", "word") for fusion in ("late", "early")]
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
NO_DOWNLOADS = ["model.backbone.weights=''", "model.text.pretrained=''", "model.init_from=''"]
SMALL_TEXT = ["model.text.name=custom"]  # open_clip cannot build without memory; its tower has a test of its own
MILLION = 1e6
HALVES = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(EXPERIMENTS))
)
def test_the_detector_of_every_experiment_builds(path: Path) -> None:
    config = load(path, [*NO_DOWNLOADS, *SMALL_TEXT])
    with torch.device("meta"):
        detector = build_detector(config.model)
    assert len(detector.neck.projections) == config.model.num_levels
    assert len(detector.decoder.layers) == config.model.transformer.decoder_layers
    check_harmless(config)  # its checkpoints can be loaded


def test_pixels_are_those_of_the_weights_that_an_experiment_names() -> None:
    """All but the small one are Swin's or train from the start."""
    found = {
        str(path.relative_to(EXPERIMENTS)): pixel_statistics(load(path).model.backbone)
        for path in EXPERIMENTS.rglob("*.yaml")
        if path.parent.name != "eval"
    }
    halves = {name for name, statistics in found.items() if statistics == HALVES}
    assert halves == {
        f"{name}.yaml"
        for name in (
            *("small_coco", "small_coco_stage2", "photographs", "photographs_stage2"),
            *("ablation/prompts/photographs", "ablation/prompts/photographs_stage1"),
        )
    }
    assert {found[name] for name in found.keys() - halves} == {IMAGENET_PIXELS}


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "eval").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_evaluation_goes_over_any_checkpoint_and_asks_by_protocols_that_exist(path: Path) -> None:
    trained = load(EXPERIMENTS / "demo" / "stage2.yaml")
    config = for_benchmark(trained, path)
    assert config.model == trained.model
    assert config.data.format != "shapes"
    assert config.eval.protocols
    assert set(config.eval.protocols) <= {*PROTOCOLS, OWN_EXEMPLARS}


def test_odinw_has_13_and_35_tasks_in_folders_of_their_own() -> None:
    few, many = (for_benchmark(Config(), EXPERIMENTS / "eval" / f"odinw{count}.yaml") for count in (13, 35))
    assert (len(few.eval.tasks), len(many.eval.tasks)) == (13, 35)
    assert few.eval.tasks.items() <= many.eval.tasks.items()
    assert len({task.folder or name for name, task in many.eval.tasks.items()}) == 35
    for task in many.eval.tasks.values():
        assert task.val == task.test  # the one whose annotations are public


@pytest.mark.parametrize("name", ["trex2_swin_t", "trex2_swin_l", "stage1"])
def test_t_rex2_has_the_values_of_its_supplement(name: str) -> None:
    """T-Rex2, supplement A.1."""
    config = load(EXPERIMENTS / f"{name}.yaml")
    model, loss, optim = config.model, config.loss, config.optim
    assert (model.granularity, model.fusion, model.num_queries) == ("phrase", "late", 900)
    assert (model.transformer.encoder_layers, model.width) == (6, 256)
    assert (optim.lr, optim.lr_backbone, optim.lr_text) == (1e-4, 1e-5, 1e-5)
    assert (loss.cost.classification, loss.cost.l1, loss.cost.giou) == (2, 5, 2)
    assert (loss.classification, loss.l1, loss.giou) == (1, 5, 2)
    assert config.train.total_batch == (64 if name == "trex2_swin_l" else 128)
    assert (config.data.format, config.train.accelerator) == ("coco", "gpu")


def test_the_paper_s_stage_2_has_none_of_the_later_cures_and_starts_where_the_other_one_starts() -> None:
    paper, best = (load(EXPERIMENTS / f"{name}.yaml") for name in ("stage2_paper", "stage2"))
    data, train, align = paper.data, paper.train, paper.loss.alignment
    assert (train.rhythm.visual, train.rhythm.text) == (8, 1)  # issue 70
    assert (train.prompt_scope, train.memory_bank.size) == ("image", 0)  # section 3.3, issue 62
    assert (data.exemplars.cross_image, data.exemplars.points, data.nameless.share) == (0, 0.5, 0)
    assert (align.weight, align.temperature, align.relation) == (1, 1, 0)  # equation 9, as are the next two
    assert not align.normalize
    assert not align.symmetric
    assert (paper.model.visual.combine, paper.model.visual.layers, paper.model.visual.ffn) == ("concat", 3, 1024)
    assert train.init_from == best.train.init_from
    assert (best.train.rhythm, best.train.total_batch, best.optim) == (train.rhythm, train.total_batch, paper.optim)


@pytest.mark.parametrize(("name", "millions"), [("trex2_swin_t", 27.5), ("trex2_swin_l", 195.0)])
def test_the_backbone_is_the_whole_swin(name: str, millions: float) -> None:
    """Swin-T has 28.3 and Swin-L 196.5 million parameters, 0.8 and 1.5 of them in the classifier (Swin, table 1)."""
    config = load(EXPERIMENTS / f"{name}.yaml", NO_DOWNLOADS + SMALL_TEXT)
    with torch.device("meta"):
        backbone = build_detector(config.model).backbone
    assert sum(p.numel() for p in backbone.parameters()) / MILLION == pytest.approx(millions, abs=0.6)


def test_the_text_encoder_is_clip_b() -> None:
    """CLIP's text transformer: 63.4 million parameters, 77 tokens of context, 512 dimensions (CLIP, table 20)."""
    config = load(EXPERIMENTS / "trex2_swin_t.yaml", NO_DOWNLOADS)
    assert config.model.text.name.startswith("ViT-B-32")
    encoder = ClipEncoder(config.model.text, config.model.width, "phrase")
    tower = sum(p.numel() for p in encoder.tower.parameters())
    assert tower / MILLION == pytest.approx(63.4, abs=0.1)
    assert (encoder.tower.context_length, encoder.tower.output_dim) == (77, 512)
    assert encoder.projection.out_features == 256


def told_apart(files: list[str]) -> list[Config]:
    """The configurations without the two choices, the name and the checkpoint to start from, which are checked."""
    configs = []
    for cell, file in zip(CELLS, files, strict=True):
        config = load(EXPERIMENTS / f"{file}.yaml")
        assert config.name == file
        assert f"{config.model.granularity}_{config.model.fusion}" == cell
        if file.endswith("_stage2"):
            last = load(EXPERIMENTS / f"full/{cell}.yaml").folder / "checkpoints" / "last.ckpt"
            assert config.train.init_from == str(last)
        config.name, config.model.granularity, config.model.fusion, config.train.init_from = "", "phrase", "late", ""
        configs.append(config)
    return configs


@pytest.mark.parametrize("files", ["ablation/{}", "full/{}", "full/{}_stage2"])
def test_cells_differ_in_the_two_choices_alone(files: str) -> None:
    """What is compared is the granularity of a text prompt and its fusion with the image, nothing else."""
    configs = told_apart([files.format(cell) for cell in CELLS])
    assert all(config == configs[0] for config in configs)


def test_the_full_comparison_is_on_t_rex2_s_data_and_one_model_goes_through_both_stages() -> None:
    [first, *_], [second, *_] = (told_apart([f"full/{cell}{end}" for cell in CELLS]) for end in ("", "_stage2"))
    for config, recipe in ((first, "stage1"), (second, "stage2")):
        trex2 = load(EXPERIMENTS / f"{recipe}.yaml", [f"model.max_tokens={config.model.max_tokens}"])
        assert config.data == trex2.data
        assert (config.model, config.loss, config.optim) == (trex2.model, trex2.loss, trex2.optim)
        assert (config.train.rhythm, config.train.max_steps) == (trex2.train.rhythm, trex2.train.max_steps)
        assert (config.train.world_size, config.data.batch_size, config.train.total_batch) == (8, 8, 128)
    assert first.model == second.model
    assert {"text", "interactive_box", "interactive_point", "generic"} == set(second.eval.protocols)


def test_the_words_of_a_full_batch_fit_early_fusion() -> None:
    """Of 8 images with ten categories each, and the negatives, named as long as LVIS's names are in CLIP's tokens."""
    config = load(EXPERIMENTS / "full" / "word_early.yaml")
    names, tokens = 10 * config.data.batch_size + config.data.negatives.count, 2.9
    assert names * tokens <= config.model.max_tokens


def test_swin_l_s_stage_2_is_swin_t_s_with_its_own_stage_1() -> None:
    first, second, recipe = (load(EXPERIMENTS / f"trex2_swin_{name}.yaml") for name in ("l", "l_stage2", "t_stage2"))
    assert second.train.init_from == str(first.folder / "checkpoints" / "last.ckpt")
    assert (second.model, second.data, second.optim) == (first.model, first.data, first.optim)
    assert (second.train.total_batch, second.train.world_size) == (first.train.total_batch, first.train.world_size)
    assert second.loss == recipe.loss
    for part in ("rhythm", "prompt_scope", "memory_bank", "max_steps"):
        assert getattr(second.train, part) == getattr(recipe.train, part)


@pytest.mark.parametrize("name", ["one_gpu", "demo/one_gpu"])
def test_the_visual_prompt_encoder_alone_is_trained_on_one_gpu(name: str) -> None:
    """By the same recipe on `shapes`, which shows it."""
    config, shown = (load(EXPERIMENTS / f"{run}.yaml", NO_DOWNLOADS) for run in (name, "demo/one_gpu"))
    with torch.device("meta"):
        parts = {part for part, module in build_detector(config.model).named_children() if [*module.parameters()]}
    assert parts - set(config.train.frozen) == {"visual_encoder"}
    assert (config.train.rhythm.visual, config.train.rhythm.text) == (1, 0)
    assert config.train.world_size == 1
    assert config.loss.denoising.queries == 0
    assert config.loss.alignment == shown.loss.alignment
    for part in ("frozen", "prompt_scope", "memory_bank"):
        assert getattr(config.train, part) == getattr(shown.train, part)


def test_then_the_decoder_is_trained_at_a_tenth_of_the_rate() -> None:
    first, then = (load(EXPERIMENTS / f"{name}.yaml") for name in ("one_gpu", "one_gpu_decoder"))
    assert then.train.init_from == str(first.folder / "checkpoints" / "last.ckpt")
    assert set(first.train.frozen) - set(then.train.frozen) == {"decoder"}
    assert then.optim.lr == pytest.approx(first.optim.lr / 10)
    assert (then.model, then.data) == (first.model, first.data)


def test_what_shows_it_is_the_demo_s_grounding_dino_but_for_backbone_text_and_length() -> None:
    demo, published = (load(EXPERIMENTS / "demo" / f"{name}.yaml") for name in ("word_early", "published"))
    assert (published.data, published.loss, published.optim) == (demo.data, demo.loss, demo.optim)
    published.model.backbone, published.model.text = demo.model.backbone, demo.model.text
    published.model.transformer.shared_box_head = demo.model.transformer.shared_box_head
    assert published.model == demo.model


def test_grounding_dino_is_the_official_one_to_the_last_parameter() -> None:
    """Grounding DINO's appendix A: 172 million parameters with Swin-T and BERT, of which the reference has as many."""
    config = load(EXPERIMENTS / "grounding_dino_swin_t.yaml", NO_DOWNLOADS)
    assert (config.model.granularity, config.model.fusion, config.model.num_queries) == ("word", "early", 900)
    with torch.device("meta"):
        detector = build_detector(config.model)
    extra = ("visual_encoder", "noised_content")
    count = sum(p.numel() for name, p in detector.named_parameters() if not name.startswith(extra))
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        reference = transformers.GroundingDinoForObjectDetection(transformers.GroundingDinoConfig())
    unused = sum(p.numel() for name, p in reference.named_parameters() if ".swin.layernorm." in name)
    assert count == sum(p.numel() for p in reference.parameters()) - unused
