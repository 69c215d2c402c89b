"""What a visual iteration may be asked with and train beside an image's own exemplars."""

from __future__ import annotations

import pytest
import torch
from iteration_parts import asked, batch_of, module_of

from trex2_lightning.models.early import EarlyFusionDetector
from trex2_lightning.structures import Exemplars, Prompts


@pytest.mark.parametrize("scope", ["image", "batch", "world"])
def test_background_is_one_more_category_that_nothing_is_found_by(scope: str) -> None:
    module = module_of(f"train.prompt_scope={scope}").eval()
    plain = batch_of("box", [[0, 1], [1]])
    shown = Exemplars(torch.tensor([[[[0.1, 0.1, 0.1, 0.1]]]] * 2), torch.tensor([[[True]], [[False]]]))
    batch = plain._replace(background=shown)
    before, found = asked(module, plain), asked(module, batch)
    count = before.embed.shape[1]
    assert found.category.tolist() == [*range(count + 1)]
    torch.testing.assert_close(found.embed[:, :count], before.embed.expand(2, -1, -1))
    assert found.valid[:, count].tolist() == [True, False]
    features = module.detector.encode_image(batch.images)
    own = module.detector.encode_prompts(Prompts(exemplars=shown), features)
    torch.testing.assert_close(found.embed[:, count], own.embed[:, 0])
    loss, terms = module.loss_terms(batch, 0).terms["queries/classification"], module.loss_terms(plain, 0).terms
    assert loss > terms["queries/classification"]  # one more thing that each query is to be told from


def test_kept_vectors_may_stand_for_what_a_batch_shows() -> None:
    module = module_of("train.memory_bank={size: 2, positives: 1}").eval()
    first, second = batch_of("box", [[0], [1]]), batch_of("box", [[0], [1]], seed=1)
    own = [
        module.detector.encode_prompts(some.prompts, module.detector.encode_image(some.images))
        for some in (first, second)
    ]
    places = [some.prompts.phrases.index("red star") for some in (first, second)]
    torch.testing.assert_close(asked(module, first).embed[0, places[0]], own[0].embed[0, places[0]])
    found = asked(module, second).embed[:, places[1]]
    torch.testing.assert_close(found, own[0].embed[0, places[0]].expand(2, -1))


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_how_much_boxes_look_like_exemplars_counts_as_much_as_is_learned(fusion: str) -> None:
    settings = "model.appearance={name: backbone, learned_weight: true}", f"model.fusion={fusion}"
    module, plain = module_of(*settings), module_of(*settings[1:])
    missing = module.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert {"detector.appearance_term.weight", "detector.appearance_term.bias"} < {*missing}
    batch, nothing = batch_of("box", [[0, 1], [1]]), batch_of("text", [[0, 1], [1]])
    first, second = (one.loss_terms(batch, 0).terms["queries/classification"] for one in (module, plain))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    first.backward()
    term = module.detector.appearance_term
    assert term is not None
    assert term.weight.grad is not None
    assert term.weight.grad != 0
    assert not any(one.requires_grad for one in module.detector.appearance.model.parameters())  # type: ignore[union-attr]
    with torch.no_grad():
        term.weight.fill_(1.0)
    assert module.loss_terms(batch, 0).terms["queries/classification"] != second
    of_text = [one.loss_terms(nothing, 0).terms["queries/classification"] for one in (module, plain)]
    torch.testing.assert_close(*of_text, rtol=0, atol=0)


def test_what_is_learned_of_likeness_counts_where_some_of_many_categories_are_asked_for() -> None:
    detector = module_of("model.appearance={name: backbone, learned_weight: true}").eval().detector
    assert detector.appearance_term is not None
    with torch.no_grad():
        detector.appearance_term.weight.fill_(1.0)
    batch = batch_of("box", [[0, 1], [1]])
    features = detector.encode_image(batch.images)
    prompts = detector.encode_prompts(batch.prompts, features)
    assert prompts.appearance is not None
    of_many = prompts._replace(
        category=prompts.category + 7,
        appearance=prompts.appearance._replace(category=prompts.appearance.category + 7),
    )
    found, expected = (detector.decode(features, asked).queries.logits for asked in (of_many, prompts))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_what_is_learned_of_likeness_counts_where_early_fusion_asks_in_parts() -> None:
    detector = (
        module_of("model.appearance={name: backbone, learned_weight: true}", "model.fusion=early").eval().detector
    )
    assert isinstance(detector, EarlyFusionDetector)
    assert detector.appearance_term is not None
    assert detector.appearance is not None
    with torch.no_grad():
        detector.appearance_term.weight.fill_(1.0)
    batch = batch_of("box", [[0, 1], [1]])
    assert batch.prompts.exemplars is not None
    with torch.no_grad():
        features = detector.encode_image(batch.images)
        prompts = detector.encode_prompts(batch.prompts, features)
        assert prompts.appearance is not None
        alone = []
        for number in (0, 1):
            one = batch.prompts.exemplars._replace(
                boxes=batch.prompts.exemplars.boxes[:, [number]], valid=batch.prompts.exemplars.valid[:, [number]]
            )
            alone.append(detector.decode(features, detector.encode_prompts(Prompts(exemplars=one), features)))
        detector.max_tokens = 1
        for shown in (prompts.appearance, detector.appearance.whitened(prompts.appearance)):
            merged = detector.decode(features, prompts._replace(appearance=shown))
            for number, found in enumerate(merged.queries.logits[-1].chunk(2, 1)):
                torch.testing.assert_close(found[..., number], alone[number].queries.logits[-1, ..., 0])


def test_in_the_first_steps_the_visual_prompt_encoder_alone_is_trained() -> None:
    module = module_of("optim.visual_first=2")
    optimizer = module.configure_optimizers()["optimizer"]
    for number, alone in ((0, True), (1, True), (2, False)):
        module._trainer.global_step = number  # type: ignore[union-attr]
        optimizer.zero_grad()
        module.training_step(batch_of("box", [[0, 1], [1]]), 0).backward()
        module.on_before_optimizer_step(optimizer)
        trained = {name.split(".")[0] for name, one in module.detector.named_parameters() if one.grad is not None}
        assert (trained == {"visual_encoder"}) == alone
        optimizer.step()  # with nothing to do for most
