"""Frozen parts have no gradients and stay in evaluation mode; gradients pass through them to visual prompts."""

import pytest
import torch
from detector_parts import find, prompts_of, random_images

from trex2_lightning.errors import InputError
from trex2_lightning.models.compiling import compile_parts


def all_but(detector, *trained):
    return [name for name, _ in detector.named_children() if name not in trained]


def gradients(detector, kind="box"):
    """Of the mean logit, by parameter."""
    find(detector, random_images(), prompts_of(kind)).queries.logits.mean().backward()
    return {name: parameter.grad for name, parameter in detector.named_parameters() if parameter.grad is not None}


def test_gradients_pass_through_frozen_parts_to_the_exemplars_and_are_what_they_were(detector):
    expected = gradients(detector)
    detector.zero_grad()
    detector.freeze(all_but(detector, "visual_encoder"))
    found = gradients(detector)
    assert found
    assert all(name.startswith("visual_encoder.") for name in found)
    assert max(gradient.abs().max() for gradient in found.values()) > 0
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


def test_nothing_is_recorded_before_the_exemplars(detector):
    before = find(detector, random_images(), prompts_of("text"))
    detector.freeze(all_but(detector, "visual_encoder"))
    recorded = []
    for part in (detector.backbone, detector.neck, detector.text_encoder):
        part.register_forward_pre_hook(lambda *_: recorded.append(torch.is_grad_enabled()))
    features = detector.encode_image(random_images())
    prompts = detector.encode_prompts(prompts_of("text"))
    assert recorded == [False] * 3
    assert torch.is_grad_enabled()
    assert not features.tokens.requires_grad
    assert not prompts.embed.requires_grad
    assert torch.equal(detector.decode(features, prompts).queries.logits, before.queries.logits)


@pytest.mark.parametrize("trained", ["backbone", "neck"])
def test_a_part_that_is_trained_is_recorded_whatever_stands_behind_it(detector, trained):
    detector.freeze(all_but(detector, trained))
    found = gradients(detector, "text")
    assert {name.split(".")[0] for name in found} == {trained}


def test_frozen_parts_stay_in_evaluation_mode(detector):
    detector.train()
    detector.freeze(["backbone", "decoder"])
    for mode in (True, False, True):
        detector.train(mode)
        for name, part in detector.named_children():
            expected = mode and name not in ("backbone", "decoder")
            assert all(module.training == expected for module in part.modules()), name


def test_an_unknown_part_is_told_with_those_that_there_are(late):
    with pytest.raises(InputError, match=r"^train\.frozen: the detector has no 'fusions'; there are backbone, .*heads"):
        late.freeze(["backbone", "fusions"])


@pytest.mark.slow
def test_gradients_pass_through_compiled_parts_too(detector):
    detector.freeze(all_but(detector, "visual_encoder"))
    expected = gradients(detector)
    detector.zero_grad()
    assert not compile_parts(detector, "aot_eager").failed
    for name, gradient in gradients(detector).items():
        torch.testing.assert_close(gradient, expected.pop(name), rtol=1e-3, atol=1e-6)
    assert not expected
