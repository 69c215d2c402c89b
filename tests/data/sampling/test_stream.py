"""How evaluation shares its images out between ranks; the training stream is in test_datamodule.py."""

import pytest

from trex2_lightning.data.sampling.stream import rank_order


@pytest.mark.parametrize(("num_images", "batch_size", "world"), [(7, 2, 2), (8, 2, 3), (3, 4, 2), (9, 3, 3), (1, 1, 5)])
def test_ranks_evaluate_the_batches_of_one_process(num_images: int, batch_size: int, world: int) -> None:
    [alone] = [rank_order(num_images, batch_size, 0, 1)]
    assert alone == list(range(num_images))
    batches = [alone[start : start + batch_size] for start in range(0, num_images, batch_size)]
    shares = [rank_order(num_images, batch_size, rank, world) for rank in range(world)]
    cut = [[share[start : start + batch_size] for start in range(0, len(share), batch_size)] for share in shares]
    assert {len(own) for own in cut} == {-(-len(batches) // world)}, "a rank would wait for the others"
    assert all(batch in batches for own in cut for batch in own)
    assert {image for share in shares for image in share} == set(alone)


def test_no_image_is_no_batch() -> None:
    assert rank_order(0, 4, 1, 2) == []
