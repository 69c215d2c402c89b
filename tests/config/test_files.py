"""Experiment files resolve to one validated configuration, or to one line that names the key as it was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from trex2_lightning.config import (
    Config,
    ConfigError,
    for_evaluation,
    from_dict,
    load,
    override,
    save,
    to_dict,
)

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "empty.yaml", "# all defaults\n")) == Config()


def test_child_wins_over_parent_and_command_line_over_both(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "seed: 1\nmodel: {width: 64, num_queries: 50}\noptim: {lr: 0.5}\n")
    write(tmp_path, "sub/parent.yaml", "base: ../base.yaml\nmodel: {num_queries: 60, num_levels: 5}\n")
    child = write(tmp_path, "sub/deep/child.yaml", "base: ../parent.yaml\nmodel:\n  num_levels: 3\n")
    config = load(child, ["seed=7", "data.train_sizes=[96, 128]", "logging.tags=[a]"])
    assert (config.model.width, config.model.num_queries, config.model.num_levels) == (64, 60, 3)
    assert (config.optim.lr, config.seed) == (0.5, 7)
    assert (config.data.train_sizes, config.logging.tags) == ([96, 128], ["a"])


def test_lists_of_a_child_replace_and_do_not_extend(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "data: {train_sizes: [1, 2, 3]}\n")
    child = write(tmp_path, "child.yaml", "base: base.yaml\ndata: {train_sizes: [9]}\n")
    assert load(child).data.train_sizes == [9]


def test_backbone_options_take_any_key(tmp_path: Path) -> None:
    path = write(tmp_path, "x.yaml", "model: {backbone: {options: {depths: [1, 1], drop_path_rate: 0.1}}}\n")
    assert load(path).model.backbone.options == {"depths": [1, 1], "drop_path_rate": 0.1}


def test_resolved_values_are_plain(tmp_path: Path) -> None:
    config = load(write(tmp_path, "x.yaml", "data: {train_sizes: [1]}\nmodel: {backbone: {options: {a: {b: 1}}}}\n"))
    assert type(config) is Config
    assert type(config.data.train_sizes) is list
    assert type(config.model.backbone.options["a"]) is dict


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {max_stps: 3}", "train.max_stps: Key 'max_stps' not in 'TrainConfig'. Did you mean: 'max_steps'?"),
        ("modle: {width: 64}", "modle: Key 'modle' not in 'Config'. Did you mean: 'model'?"),
        ("train: {max_steps: many}", "train.max_steps: Value 'many' of type 'str' could not be converted to Integer"),
        ("train: {max_steps: 1.5}", "train.max_steps: Value '1.5' of type 'float' could not be converted to Integer"),
        ("train: {max_steps: null}", "train.max_steps: "),
        ("train: 3", "TrainConfig"),
        ("data: {train_sizes: [1, a]}", "data.train_sizes[1]: "),
        ("seed: ${nowhere}", "seed: Interpolation key 'nowhere' not found"),
        ("eval: {protocols: text}", "eval.protocols: is a list: put what is in it into brackets"),
        ("data:\n  root: ???", "data.root: ??? says nothing; give a value, or leave it out"),
        ("- a list", "is not a mapping of keys to values"),
        ("train: [", "is not valid YAML"),
        ("train:\n\tmax_steps: 3", "is not valid YAML"),
        ("seed: 1\nseed: 2", "found duplicate key seed"),
        ("base: [a.yaml, b.yaml]", "base must be one file"),
        ("base: gone.yaml", "no experiment file"),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "x.yaml", text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert message in str(error.value)
    assert "x.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("train.max_stps=3", "train.max_stps: Key 'max_stps' not in 'TrainConfig'. Did you mean: 'max_steps'?"),
        ("train.max_steps=many", "train.max_steps: Value 'many'"),
        ("train.max_steps", "'train.max_steps' is not an override: write key=value"),
        ("--resume=1", "'--resume=1' is not an override"),
        ("=3", "'=3' is not an override"),
        ("train.rhythm.text=0", "train.rhythm.visual=0 and train.rhythm.text=0 must not be negative, nor both 0"),
        ("train.rhythm.visual=-1", "train.rhythm.visual=-1 and train.rhythm.text=1 must not be negative"),
        ("train.prompt_scope=rank", "expected one of ['image', 'batch', 'world']"),
        ("data.exemplars.limit=0", "data.exemplars.limit=0 must be at least 1"),
        ("eval.references=[]", "eval.references=[] must be one or more numbers of at least 1"),
        ("eval.references=[4, 0]", "eval.references=[4, 0] must be one or more numbers of at least 1"),
        ("data.exemplars.points=50", "data.exemplars.points=50.0 must lie between 0 and 1"),
        ("data.exemplars.cross_image=-1", "data.exemplars.cross_image=-1.0 must lie between 0 and 1"),
        ("data.nameless.share=2", "data.nameless.share=2.0 must lie between 0 and 1"),
        ("train.memory_bank.size=-1", "train.memory_bank.size=-1 must not be negative"),
        ("train.memory_bank.negatives=0", "train.memory_bank.negatives=0 must be at least 1"),
        ("train.memory_bank.foreign=true", "give train.memory_bank.size=16"),
        ("train.memory_bank.positives=0.5", "give train.memory_bank.size=16"),
        ("loss.alignment.temperature=0", "loss.alignment.temperature=0.0 must be more than 0"),
        (
            "loss.alignment={learned_temperature: true, temperature: 2}",
            "loss.alignment.temperature=2.0 must lie between 0.01 and 1 where it is learned",
        ),
        ("model.transformer.heads=0", "model.transformer.heads=0 must be at least 1"),
        ("model.transformer.decoder_layers=0", "model.transformer.decoder_layers=0 must be at least 1"),
        (
            "model.backbone.mean=[0.5]",
            "model.backbone.mean=[0.5] and model.backbone.std=[] must both be empty or",
        ),
        ("model.backbone.std=[1, 1, 1]", "model.backbone.mean=[] and model.backbone.std=[1.0, 1.0, 1.0] must both be"),
        ("model.backbone={mean: [0, 0, 0], std: [1, 0, 1]}", "each of model.backbone.std=[1.0, 0.0, 1.0] above 0"),
        ("model.backbone={mean: [0, 0, nan], std: [1, 1, 1]}", "model.backbone.mean=[0.0, 0.0, nan] must be finite"),
        ("eval.batch_size=0", "eval.batch_size=0 must be at least 1"),
        ("logging.every=0", "logging.every=0 must be at least 1"),
        ("logging.project=team/project", "logging.project='team/project' must have 1 to 128 characters and none of /"),
        ("logging.project=", "logging.project='' must have 1 to 128 characters"),
        (f"logging.project={'p' * 129}", "must have 1 to 128 characters"),
        (f"logging.tags=[{'t' * 65}]", "has 65 characters, and W&B takes 1 to 64"),
        ("data.num_workers=-1", "data.num_workers=-1 must be a number that is not negative"),
        ("data.negatives.count=-1", "data.negatives.count=-1 must be a number that is not negative"),
        ("data.negatives.foreign=-1", "data.negatives.foreign=-1 must be a number that is not negative"),
        ("optim.lr=-1", "optim.lr=-1.0 must be a number that is not negative"),
        ("optim.lr_text=nan", "optim.lr_text=nan must be a number that is not negative"),
        ("eval.protocols=text", "eval.protocols: is a list: put what is in it into brackets, with commas between"),
        ("data.train_sizes=640", "data.train_sizes: is a list: put what is in it into brackets"),
        ("name=???", "name: ??? says nothing; give a value, or leave it out"),
        ("train.max_steps=[x", "the value of 'train.max_steps=[x' is not valid YAML: put it into quotes"),
    ],
)
def test_wrong_override(tmp_path: Path, item: str, message: str) -> None:
    path = write(tmp_path, "x.yaml", "")
    for attempt in (
        lambda: load(path, [item]),
        lambda: override(Config(), [item]),
        lambda: for_evaluation(Config(), [item]),
    ):
        with pytest.raises(ConfigError) as error:
            attempt()
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"^no experiment file nowhere\.yaml$"):
        load("nowhere.yaml")


def test_missing_parent_names_the_child(tmp_path: Path) -> None:
    write(tmp_path, "parent.yaml", "base: gone.yaml")
    child = write(tmp_path, "child.yaml", "base: parent.yaml")
    with pytest.raises(ConfigError, match=r"gone\.yaml \(base of .*parent\.yaml\)$"):
        load(child)


def test_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.yaml is not valid YAML"):
        load(tmp_path / "x.yaml")


def test_cycle_of_parents(tmp_path: Path) -> None:
    first = write(tmp_path, "first.yaml", "base: sub/second.yaml")
    write(tmp_path, "sub/second.yaml", "base: ../first.yaml")
    with pytest.raises(ConfigError, match=r"is its own parent: first\.yaml -> second\.yaml$"):
        load(first)


@pytest.mark.parametrize(
    ("items", "named"),
    [
        (["data.max_size=10", "data.size=20"], ["data.max_size=10", "data.size=20"]),
        (["data.negatives.source=both"], ["data.negatives.source=both", "data.negatives.dictionary=FILE"]),
        (["model.text.name=custom", "model.text.pretrained=openai"], ["model.text.name=custom", "text.pretrained"]),
        (["model.width=36", "model.transformer.heads=8"], ["model.width=36", "model.transformer.heads=8"]),
        (["model.width=6", "model.transformer.heads=2"], ["model.width=6", "multiple of 32"]),
        (["model.prior=1"], ["model.prior=1"]),
        (["model.num_levels=1"], ["model.num_levels=1", "model.backbone.out_indices=[1, 2, 3]"]),
        (["optim.decay_share=2"], ["optim.decay_share=2"]),
        (["data.sets.a.text=1"], ["data.sets.a.annotations is missing", "relative to data.root"]),
        (["data.sets.a={annotations: x, kind: grounding, visual: 1}"], ["data.sets.a.visual=1.0", "text alone"]),
        (["data.sets.a={annotations: x, kind: nameless, text: 1}"], ["data.sets.a.text=1.0", "has no text"]),
        (["data.sets.a={annotations: x, text: -1}"], ["data.sets.a.text=-1.0", "not negative"]),
        (["data.sets.a={annotations: x}"], ["has no data", "data.sets.NAME.text=1"]),
        (["data.sets.a={annotations: x, text: 1}", "data.limit=3"], ["data.limit=3", "leave it out"]),
        (["data.exemplars.cross_image=1", "data.batch_size=1"], ["cross_image=1.0", "data.batch_size of at least 2"]),
        (
            ["train.total_batch=12", "data.batch_size=8", "train.devices=1"],
            ["train.total_batch=12", "data.batch_size=8", "train.devices=1"],
        ),
    ],
)
def test_contradictions_name_the_keys_as_typed(tmp_path: Path, items: list[str], named: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, "x.yaml", ""), items)
    assert [key for key in named if key not in str(error.value)] == []
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("devices", "nodes", "accumulate"), [(1, 1, 16), (8, 1, 2), (8, 2, 1)])
def test_gradients_accumulate_to_the_total_batch(tmp_path: Path, devices: int, nodes: int, accumulate: int) -> None:
    items = [f"train.devices={devices}", f"train.nodes={nodes}", "data.batch_size=8", "train.total_batch=128"]
    assert load(write(tmp_path, "x.yaml", ""), items).accumulate == accumulate


def test_dict_round_trip(tmp_path: Path) -> None:
    config = load(
        write(tmp_path, "x.yaml", "seed: 3\nmodel: {backbone: {options: {depths: [1, 2]}}}\noptim: {lr: 3e-4}\n")
    )
    assert from_dict(to_dict(config)) == config
    assert to_dict(config)["optim"]["lr"] == 3e-4


def test_saved_file_loads_to_the_same(tmp_path: Path) -> None:
    config = override(Config(), ["train.max_steps=3", "logging.tags=[a, b]"])
    save(config, tmp_path / "saved.yaml")
    assert load(tmp_path / "saved.yaml") == config


def test_override_leaves_the_original(tmp_path: Path) -> None:
    config = Config()
    assert override(config, ["data.train_sizes=[1]"]).data.train_sizes == [1]
    assert config == Config()


def test_an_evaluation_takes_any_devices(tmp_path: Path) -> None:
    config = load(write(tmp_path, "x.yaml", "data: {batch_size: 4}\ntrain: {devices: 1, total_batch: 4}"))
    many = for_evaluation(config, ["train.devices=3", "train.nodes=2", "eval.batch_size=5"])
    assert (many.train.world_size, many.eval.batch_size) == (6, 5)
    assert for_evaluation(config, ["data.batch_size=7"]).data.batch_size == 7
    for wrong in ("train.devices=0", "data.batch_size=0"):
        with pytest.raises(ConfigError, match=f"^{wrong} must be at least 1"):
            for_evaluation(config, [wrong])


def test_dict_of_another_version_is_an_error() -> None:
    values = to_dict(Config())
    values["train"]["gone"] = 1
    with pytest.raises(ConfigError, match=r"the checkpoint: train\.gone: Key 'gone' not in 'TrainConfig'"):
        from_dict(values)


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(EXPERIMENTS))
)
def test_every_experiment_loads(path: Path) -> None:
    assert isinstance(load(path), Config)
