"""Where the criterion's gradients must and must not flow, and in which precision."""

from math import inf

import torch
from criterion_parts import (
    CATEGORY,
    CRITERION,
    NAMES,
    TINY_TARGET,
    on_paper,
    predictions,
    prompts,
    random_batch,
    random_output,
)
from torch import Tensor

from trex2_lightning.structures import Detections, DetectorOutput, Targets


def test_unjudged_categories_without_boxes_get_exactly_no_gradient() -> None:
    output, targets, noised = random_batch([2, 2])
    judged = torch.tensor([[True, False, True], [False, True, True]])
    targets = [target._replace(labels=torch.full_like(target.labels, 2)) for target in targets]
    sum(CRITERION(output, targets, judged, noised).values()).backward()
    expected = torch.tensor([[True, True, True, False, True], [False, False, True, True, True]])  # (B, T), 2: separator
    for detections in output[:3]:
        gradient = detections.logits.grad != 0
        assert gradient.any(2).any(0).equal(expected)


def test_a_marked_object_of_an_unjudged_category_is_learned_and_has_no_negatives() -> None:
    output = random_output(None, 1, torch.Generator().manual_seed(0))
    target = Targets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), 0)
    sum(CRITERION(output, [target], torch.tensor([[True, False, True]])).values()).backward()
    for detections in output[:2]:
        gradient = detections.logits.grad[..., CATEGORY.index(1)]  # (K, 1, Q)
        assert (gradient <= 0).all()
        assert ((gradient < 0).sum(2) == 1).all()  # of one query in each layer


def test_invalid_tokens_get_exactly_no_gradient_even_if_infinite() -> None:
    output, targets, noised = random_batch([2, 2])
    valid = torch.tensor([[True, True, True, True, False], [True, False, True, True, True]])
    with torch.no_grad():
        for detections in output[:3]:
            detections.logits.transpose(1, 2)[:, :, ~valid] = -inf
    losses = CRITERION(output._replace(prompts=prompts(CATEGORY, 2)._replace(valid=valid)), targets, None, noised)
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    for detections in output[:3]:
        gradient = detections.logits.grad != 0
        assert gradient.any(2).any(0).equal(valid)
        assert detections.boxes.grad.isfinite().all()


def test_padded_noised_queries_get_no_gradient() -> None:
    output, targets, noised = random_batch([3, 1])
    sum(CRITERION(output, targets, None, noised).values()).backward()
    assert (output.noised.logits.grad[:, ~noised.valid] == 0).all()
    assert (output.noised.logits.grad[:, noised.valid] != 0).all()
    assert (output.noised.boxes.grad.any(-1) == (noised.target >= 0)).all()


def test_batch_without_boxes_is_finite_and_reaches_every_prediction() -> None:
    output, targets, noised = random_batch([0, 0])
    losses = CRITERION(output, targets, None, noised)
    assert list(losses) == NAMES
    assert all(loss.item() == 0 for name, loss in losses.items() if not name.endswith("/classification"))
    assert losses["queries/classification"] > 0
    gradients = torch.autograd.grad(sum(losses.values()), predictions(output))  # raises where one is not reached
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].any()
    assert not gradients[-1].any()


def test_gradient_is_the_derivative() -> None:
    output, targets, noised = random_batch([2, 1])
    targets = [target._replace(boxes=target.boxes.double()) for target in targets]
    leaves = [tensor.detach().double().requires_grad_() for tensor in predictions(output)]

    def loss(*leaves: Tensor) -> Tensor:
        parts = [Detections(*leaves[i : i + 2]) for i in (0, 2, 4)]
        return sum(CRITERION(DetectorOutput(*parts, output.prompts), targets, None, noised).values())

    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True)


def test_half_precision_predictions_are_compared_in_float32() -> None:
    output, targets, noised = random_batch([2, 1])
    half = DetectorOutput(*(Detections(d.logits.bfloat16(), d.boxes.bfloat16()) for d in output[:3]), output.prompts)
    full = DetectorOutput(*(Detections(d.logits.float(), d.boxes.float()) for d in half[:3]), output.prompts)
    expected = CRITERION(full, targets, None, noised)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = CRITERION(half, targets, None, noised)
    assert all(loss.dtype == torch.float32 and loss.equal(expected[name]) for name, loss in losses.items())


def test_autocast_does_not_blur_the_matching() -> None:
    """Two queries on the target's box differ by less in score than bfloat16 can tell: the better one is matched."""
    logits = torch.tensor([2.0, 2.0005]).view(1, 1, 2, 1)
    boxes = TINY_TARGET.boxes.repeat(2, 1)[None, None].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = on_paper(Detections(logits, boxes * 1.1), TINY_TARGET)
    sum(losses.values()).backward()
    assert boxes.grad.any(-1).tolist() == [[[False, True]]]
