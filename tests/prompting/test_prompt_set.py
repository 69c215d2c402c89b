"""Prompt files: what is written is read again, and everything else is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trex2_lightning.errors import InputError
from trex2_lightning.prompting.prompt_file import FILE_FORMAT
from trex2_lightning.prompting.prompt_set import PromptSet, fingerprint, join, load_prompts, save_prompts

SET = PromptSet(("red star", "клетка"), torch.tensor([[1.0, 2.0, 3.0], [0.1, -0.2, 1e-30]]), ("text", "generic"))
WEIGHTS = "0123"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(vectors, key=text)`: a prompt file with other vectors and other metadata (None: left out)."""

    def writing(vectors: torch.Tensor = SET.vectors, **changes: Any) -> Path:
        metadata = {
            "format": "trex2_lightning.prompts",
            "version": "2",
            "names": json.dumps(SET.names),
            "sources": json.dumps(SET.sources),
            "weights": WEIGHTS,
        } | changes
        path = tmp_path / "set.safetensors"
        save_file({"vectors": vectors}, path, {key: text for key, text in metadata.items() if text is not None})
        return path

    return writing


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "set.safetensors"
    transposed = SET.vectors.T.contiguous().T  # not contiguous
    save_prompts(SET._replace(vectors=transposed), path, WEIGHTS)
    loaded = load_prompts(path, 3, WEIGHTS)
    assert (loaded.names, loaded.sources) == (SET.names, SET.sources)
    assert torch.equal(loaded.vectors, SET.vectors)


def test_the_format_stays_readable(write: Callable[..., Path]) -> None:
    assert load_prompts(write(), 3, WEIGHTS).names == SET.names


@pytest.mark.parametrize(
    ("vectors", "changes", "message"),
    [
        (SET.vectors, {"format": None}, "is safetensors, but has no prompts of this project"),
        (SET.vectors, {"version": "3"}, "has prompts of version 3, and this program reads 1 and 2"),
        (SET.vectors, {"names": None}, "has no names of its categories"),
        (SET.vectors, {"names": "red star"}, "has no names of its categories"),
        (SET.vectors, {"names": '{"red star": 1, "x": 2}'}, "has no names of its categories"),
        (SET.vectors, {"names": "[1, 2]"}, "has no names of its categories"),
        (SET.vectors, {"names": '["red star"]'}, "has 2 vectors, 1 names and 2 sources"),
        (SET.vectors, {"names": '["x", "x"]'}, "has the name 'x' twice"),
        (SET.vectors, {"sources": '["text"]'}, "has 2 vectors, 2 names and 1 sources"),
        (SET.vectors, {"sources": '["text", "magic"]'}, "does not say what its vectors were made from"),
        (SET.vectors, {"weights": "4567"}, "was made by a detector with other weights"),
        (SET.vectors, {"weights": None}, "was made by a detector with other weights"),
        (torch.zeros(2, 4), {}, "has vectors of width 4, and this detector's have 3"),
        (torch.zeros(3, 3), {}, "has 3 vectors, 2 names and 2 sources"),
        (torch.zeros(6), {}, "lacks the tensor 'vectors'"),
        (torch.zeros(2, 3, dtype=torch.int32), {}, "lacks the tensor 'vectors'"),
        (torch.tensor([[0.0, 1.0, float("nan")]] * 2), {}, "has vectors with numbers that are not finite"),
    ],
)
def test_what_does_not_fit_is_refused(
    write: Callable[..., Path], vectors: torch.Tensor, changes: dict[str, Any], message: str
) -> None:
    path = write(vectors, **changes)
    with pytest.raises(InputError) as error:
        load_prompts(path, 3, WEIGHTS)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    pickled, cut = tmp_path / "pickle.safetensors", tmp_path / "cut.safetensors"
    torch.save({"vectors": SET.vectors}, pickled)
    save_prompts(SET, cut, WEIGHTS)
    cut.write_bytes(cut.read_bytes()[:-4])
    (tmp_path / "empty").touch()
    for path in (pickled, cut, tmp_path / "empty"):
        with pytest.raises(InputError, match="is no safetensors file, or damaged"):
            load_prompts(path, 3, WEIGHTS)
    with pytest.raises(InputError, match="no prompt file"):
        load_prompts(tmp_path / "gone", 3, WEIGHTS)
    for vectors in (SET.vectors.bfloat16(), SET.vectors.to(torch.float8_e4m3fn)):  # which NumPy has not
        save_file({"vectors": vectors}, cut)
        with pytest.raises(InputError, match="is no safetensors file, or damaged"):
            load_prompts(cut, 3, WEIGHTS)
    save_file({"other": SET.vectors}, cut)
    with pytest.raises(InputError, match="has no prompts of this project"):
        load_prompts(cut, 3, WEIGHTS)


def test_sets_join_in_order() -> None:
    other = PromptSet(("ring",), torch.tensor([[7.0, 8.0, 9.0]]), ("tuned",))
    joined = join(SET, other)
    assert joined.names == ("red star", "клетка", "ring")
    assert joined.sources == ("text", "generic", "tuned")
    assert torch.equal(joined.vectors, torch.cat([SET.vectors, other.vectors]))


def test_a_prompt_file_is_called_what_it_is_and_written_or_said_not_to_be(tmp_path: Path) -> None:
    for name in ("prompts.json", "prompts", "prompts.pt"):
        with pytest.raises(InputError, match=r"prompts are written as \.safetensors: call it prompts\.safetensors$"):
            save_prompts(SET, str(tmp_path / name), WEIGHTS)
    assert not [*tmp_path.iterdir()]
    path = tmp_path / "prompts.safetensors"
    save_prompts(SET, str(path), WEIGHTS)
    assert load_prompts(str(path), SET.vectors.shape[1], WEIGHTS).names == SET.names
    with pytest.raises(InputError, match=r"x\.safetensors: cannot be written \("):
        save_prompts(SET, path / "x.safetensors", WEIGHTS)


def test_a_name_stands_for_one_category() -> None:
    with pytest.raises(InputError, match="the category 'red star' is given twice"):
        join(SET, SET)


def test_the_fingerprint_is_of_the_weights() -> None:
    torch.manual_seed(0)
    model, twin = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    assert fingerprint(model) != fingerprint(twin)
    twin.load_state_dict(model.state_dict())
    assert fingerprint(model) == fingerprint(twin.requires_grad_(False).eval())
    twin[1].num_batches_tracked += 1
    assert fingerprint(model) != fingerprint(twin)
    assert fingerprint(model.bfloat16()) != fingerprint(model.float())


SHOWN = SET._replace(appearance={"клетка": torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])})


def test_appearance_is_kept_for_the_network_that_made_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "shown.safetensors"
    save_prompts(SHOWN, path, WEIGHTS, "resnet 45")
    loaded = load_prompts(path, 3, WEIGHTS, "resnet 45")
    assert loaded.appearance.keys() == {"клетка"}
    assert torch.equal(loaded.appearance["клетка"], SHOWN.appearance["клетка"])
    with pytest.raises(InputError, match="has the appearance that another network saw"):
        load_prompts(path, 3, WEIGHTS, "resnet 67")
    assert not load_prompts(path, 3, WEIGHTS).appearance
    assert "does not compare appearance" in caplog.text


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"appearance.7": torch.ones(1, 2)}, "has the appearance of a category without a name"),
        ({"appearance.1": torch.ones(2)}, "has appearance that is no finite 32-bit numbers"),
        ({"appearance.1": torch.full((1, 2), torch.nan)}, "has appearance that is no finite 32-bit numbers"),
    ],
)
def test_appearance_that_does_not_fit_is_refused(
    write: Callable[..., Path], tensors: dict[str, torch.Tensor], message: str
) -> None:
    path = write(network="resnet 45")
    metadata = {"format": FILE_FORMAT, "version": "2", "names": json.dumps(SET.names), "network": "resnet 45"}
    metadata |= {"sources": json.dumps(SET.sources), "weights": WEIGHTS}
    save_file({"vectors": SET.vectors} | tensors, path, metadata)
    with pytest.raises(InputError, match=message):
        load_prompts(path, 3, WEIGHTS, "resnet 45")


def test_files_of_the_first_version_have_one_word_for_all_exemplars(write: Callable[..., Path]) -> None:
    assert load_prompts(write(version="1", sources='["text", "visual"]'), 3, WEIGHTS).sources == ("text", "generic")


def test_prompt_tokens_have_the_exemplars_of_each_category() -> None:
    shown = join(SHOWN, PromptSet(("ring",), torch.ones(1, 3), ("generic",), {"ring": torch.ones(1, 2)}))
    tokens = shown.tokens(torch.device("cpu"))
    assert tokens.embed.shape == (1, 3, 3)
    assert tokens.appearance is not None
    assert tokens.appearance.category.tolist() == [1, 1, 1, 2]
    assert tokens.appearance.vectors.shape == (1, 4, 2)
    assert SET.tokens(torch.device("cpu")).appearance is None
