"""Training reduces the loss; evaluation gives pixels of the original files and asks for what it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from trex2_lightning.config import Config
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.metrics.detection import ImageResult
from trex2_lightning.prompting.protocols import Prompting, Text
from trex2_lightning.structures import Batch, Detections, DetectorOutput, Images, Prompts, PromptTokens, Targets
from trex2_lightning.training.build import build_datamodule, build_metric, build_module
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule, Measurement
from trex2_lightning.training.trainer import build_evaluator

TinyConfig = Callable[..., Config]
PHRASES = ("red block", "green block", "blue block")
STEPS = 20
LAST_LOSS = 12.1


@pytest.fixture
def module(tiny_config: TinyConfig) -> DetectionModule:
    torch.manual_seed(0)
    return build_module(tiny_config()).eval()


def images(*sizes: tuple[int, int]) -> Images:
    """64 x 64 inputs that were made of files of these heights and widths."""
    pixels = torch.randn(len(sizes), 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Images(pixels, torch.ones(len(sizes), 64, 64, dtype=torch.bool), torch.tensor(sizes))


def training_batch() -> Batch:
    """Two images, a box in each."""
    boxes = torch.tensor([[[0.3, 0.3, 0.4, 0.4]], [[0.6, 0.5, 0.3, 0.5]]])
    targets = tuple(Targets(torch.tensor([i]), boxes[i], i) for i in range(2))
    return Batch(images((64, 64), (64, 64)), Prompts(PHRASES), targets)


def early_loss(tiny_config: TinyConfig, max_tokens: int, batch: Batch) -> float:
    torch.manual_seed(0)
    settings = ("model.fusion=early", "model.granularity=word", "loss.denoising.queries=0")
    module = build_module(tiny_config(*settings, f"model.max_tokens={max_tokens}")).eval()
    module._trainer = SimpleNamespace(world_size=1, global_rank=0)  # type: ignore[assignment]
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[assignment]
    return module.training_step(batch, 0).item()


def test_training_of_early_fusion_leaves_out_negatives_for_which_there_is_no_room(tiny_config: TinyConfig) -> None:
    """A name is two words and the token that closes it; the last name is in no image."""
    batch = training_batch()
    without = batch._replace(prompts=Prompts(PHRASES[:2]))
    assert early_loss(tiny_config, 6, batch) == pytest.approx(early_loss(tiny_config, 99, without))
    assert early_loss(tiny_config, 9, batch) != pytest.approx(early_loss(tiny_config, 99, without))


def test_where_there_is_no_room_for_what_is_there_its_boxes_are_left_out_too(tiny_config: TinyConfig) -> None:
    batch = training_batch()
    judged = torch.tensor([[True, False, True], [False, True, True]])
    batch = batch._replace(prompts=batch.prompts._replace(judged=judged))
    alone = []
    for kept in range(2):
        targets = [Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), i) for i in range(2)]
        targets[kept] = batch.targets[kept]._replace(labels=torch.tensor([0]))
        prompts = Prompts(PHRASES[kept : kept + 1], judged=judged[:, kept : kept + 1])
        alone.append(early_loss(tiny_config, 99, Batch(batch.images, prompts, tuple(targets))))
    assert early_loss(tiny_config, 4, batch) in [pytest.approx(loss) for loss in alone]


def training_losses(config: Config, batch: Batch, steps: int) -> list[float]:
    L.seed_everything(0, verbose=False)
    module, losses = build_module(config), []
    step = module.training_step

    def recorded(batch: Batch, batch_idx: int) -> Tensor:
        loss = step(batch, batch_idx)
        losses.append(loss.item())
        return loss

    module.training_step = recorded  # type: ignore[method-assign]
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=config.optim.clip_norm,
    )
    trainer.fit(module, DataLoader([batch] * steps, batch_size=None))
    return losses


def test_twenty_steps_reach_the_recorded_loss(tiny_config: TinyConfig) -> None:
    """Recorded on one CPU; others round otherwise, and a matching may flip."""
    rates = ("optim.lr=3e-3", "optim.lr_backbone=3e-3", "optim.lr_text=3e-3")
    config = tiny_config(*rates, "optim.warmup_steps=1", "optim.decay_share=0")
    losses = training_losses(config, training_batch(), STEPS)
    assert len(losses) == STEPS
    assert losses[-1] == pytest.approx(LAST_LOSS, rel=0.15)
    assert losses[-1] < 0.5 * losses[0]


def test_the_same_seed_gives_the_same_losses_and_another_one_does_not(tiny_config: TinyConfig) -> None:
    one, same, other = (training_losses(tiny_config(f"seed={seed}"), training_batch(), 2) for seed in (0, 0, 1))
    assert one == same
    assert one != other  # the weights are equal: `seed` moves the noise of the denoising


def detected(module: DetectionModule, images: Images, image_ids: list[int]) -> list[ImageResult]:
    prompts = module.detector.encode_prompts(Prompts(PHRASES))
    return module.detect(module.detector.encode_image(images), prompts, images.sizes, image_ids)


def test_boxes_are_in_pixels_of_the_original_file(module: DetectionModule, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.full((2, 2, 3, 3), -9.0)  # two layers, of which the last one counts
    logits[1, :, 0, 1], logits[1, :, 1, 2] = 3.0, 0.0
    boxes = torch.rand(2, 2, 3, 4)
    boxes[1, :, 0] = torch.tensor([0.5, 0.5, 0.5, 1.0])
    boxes[1, :, 1] = torch.tensor([0.9, 0.2, 0.4, 0.2])  # reaches out on the right
    found = Detections(logits, boxes)

    def decode(_features: Any, prompts: PromptTokens) -> DetectorOutput:
        return DetectorOutput(found, found, None, prompts)

    monkeypatch.setattr(module.detector, "decode", decode)
    first, second = detected(module, images((100, 200), (50, 40)), [7, 9])
    assert (first.image_id, second.image_id) == (7, 9)
    torch.testing.assert_close(first.boxes[:2], torch.tensor([[50.0, 0, 150, 100], [140, 10, 200, 30]]))
    torch.testing.assert_close(second.boxes[:2], torch.tensor([[10.0, 0, 30, 50], [28, 5, 40, 15]]))
    assert first.labels[:2].tolist() == [1, 2]
    torch.testing.assert_close(first.scores[:2], torch.tensor([3.0, 0.0]).sigmoid())


def test_the_best_detections_are_kept_best_first(tiny_config: TinyConfig) -> None:
    module = build_module(tiny_config("eval.max_detections=5")).eval()
    [result] = detected(module, images((64, 64)), [1])
    everything = build_module(tiny_config("eval.max_detections=1000"))
    everything.load_state_dict(module.state_dict())
    [reference] = detected(everything.eval(), images((64, 64)), [1])
    assert len(result.scores) == 5
    assert len(reference.scores) == 20 * 3
    torch.testing.assert_close(result.scores, reference.scores.sort(descending=True).values[:5])


def test_a_category_that_is_not_valid_is_not_found(module: DetectionModule) -> None:
    """Which one that is may differ from image to image."""
    prompts = module.detector.encode_prompts(Prompts(PHRASES))
    valid = torch.tensor([[True, False, True], [False, False, False]])
    batch = images((64, 64), (64, 64))
    some, nothing = module.detect(
        module.detector.encode_image(batch), prompts._replace(valid=valid), batch.sizes, [1, 2]
    )
    assert set(some.labels.tolist()) == {0, 2}
    assert len(some.scores) == 20 * 2
    assert len(nothing.scores) == len(nothing.boxes) == len(nothing.labels) == 0


def encoded_phrases(module: DetectionModule) -> list[tuple[str, ...]]:
    """What the text encoder is asked to encode from now on."""
    calls: list[tuple[str, ...]] = []
    module.detector.text_encoder.register_forward_hook(lambda _, args, __: calls.append(args[0]))
    return calls


def test_an_evaluation_encodes_the_names_once(tiny_config: TinyConfig, module: DetectionModule) -> None:
    calls = encoded_phrases(module)
    report = evaluate(tiny_config("eval.batch_size=1"), module, "test", ["text"])
    assert calls == [PHRASES]
    assert len(report.rows["text"].results) == 3  # batches


@pytest.mark.parametrize("split", ["val", "test"])
def test_all_protocols_share_one_encoding_of_every_image(
    tiny_config: TinyConfig, module: DetectionModule, split: Any
) -> None:
    calls, batches = encoded_phrases(module), []
    module.detector.backbone.register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    report = evaluate(tiny_config(), module, split, ["text", "random_phrases", "hinted_text"])
    assert list(report.rows) == ["text", "random_phrases", "hinted_text"]
    assert sum(batches) == 3
    assert calls[0] == PHRASES
    assert sorted(calls[1]) == sorted(PHRASES)
    assert len(calls) == 2


def test_the_first_protocol_is_what_a_run_logs_and_shows(
    tiny_config: TinyConfig, module: DetectionModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, data = evaluating(module, tiny_config(), {"shown": Text(), "other": Text(("a", "b", "c"))})
    shown, other = (protocol.metric for protocol in module.protocols.values())
    monkeypatch.setattr(shown, "compute", lambda: {"ap": 0.25})
    monkeypatch.setattr(other, "compute", lambda: {"ap": 0.75})
    trainer.test(module, datamodule=data, verbose=False)
    assert trainer.logged_metrics == {"test/ap": 0.25, "test/other/ap": 0.75, "test/mean_ap": 0.5}
    assert module.figures == {"shown": {"ap": 0.25}, "other": {"ap": 0.75}}
    with torch.inference_mode():
        results = module.validation_step(next(iter(data.test_dataloader())))
    torch.testing.assert_close(results[0].scores, shown.results()[0].scores)
    assert not torch.equal(results[0].scores, other.results()[0].scores)


def test_each_evaluation_encodes_anew_since_the_weights_may_have_changed(
    tiny_config: TinyConfig, module: DetectionModule
) -> None:
    trainer, data = evaluating(module, tiny_config(), {"text": Text()})

    def scores() -> Tensor:
        trainer.test(module, datamodule=data, verbose=False)
        return module.protocols["text"].metric.results()[0].scores

    before, same = scores(), scores()
    torch.nn.init.normal_(module.detector.text_encoder.projection.weight)
    after = scores()
    assert torch.equal(before, same)
    assert not torch.equal(before, after)


def evaluating(
    module: DetectionModule, config: Config, promptings: dict[str, Prompting]
) -> tuple[L.Trainer, DetectionDataModule]:
    data = build_datamodule(config)
    data.setup("test")
    module.protocols = {
        row: Measurement(asked, build_metric(config, data.test_records)) for row, asked in promptings.items()
    }
    return build_evaluator(config), data


def test_unreadable_training_images_are_counted(tiny_coco: Path, tiny_config: TinyConfig) -> None:
    """Twelve images are seen, which is twice the data set."""
    broken = tiny_coco / "train" / "2.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    module = train(tiny_config("train.max_steps=3", "data.unreadable=0.2"))
    assert module.skipped_images == 2
