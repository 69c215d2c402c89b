"""What `make stage1` and `make stage2` start, and how nodes find one another."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from trex2_lightning.config import Config, ConfigError, load, save
from trex2_lightning.training.trainer import build_trainer

ROOT = Path(__file__).parents[2]
TWO_NODES = ("train.devices=1", "train.nodes=2", "data.batch_size=1", "train.total_batch=2")
LAUNCHERS = re.compile("SLURM|TORCHELASTIC|MASTER_|WORLD_SIZE|RANK|LOCAL_RANK|GPUS|NODES|CKPT|CONFIG|ARGS|MAKE|MFLAGS")
TinyConfig = Callable[..., Config]


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if LAUNCHERS.match(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # else a faked rank would silence the loggers of later tests


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)


def started(*arguments: str) -> list[str]:
    """The arguments of scripts/train.py."""
    [line] = [line for line in make(*arguments).stdout.splitlines() if "scripts/train.py" in line]
    return shlex.split(line)[2:]


@pytest.mark.parametrize(
    ("arguments", "devices", "nodes"),
    [((), 1, 1), (("GPUS=8",), 8, 1), (("GPUS=16",), 8, 2), (("GPUS=32",), 8, 4), (("GPUS=16", "NODES=4"), 4, 4)],
)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_gpus_are_spread_over_nodes_of_eight(stage: str, arguments: tuple[str, ...], devices: int, nodes: int) -> None:
    config, *settings = started(stage, *arguments)
    assert config == f"experiments/{stage}.yaml"
    assert settings == ["train.accelerator=gpu", f"train.devices={devices}", f"train.nodes={nodes}"]
    train = load(ROOT / config, [*settings, "data.batch_size=4"]).train
    assert (train.world_size, train.total_batch) == (devices * nodes, 128)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_without_gpus_one_process_trains_with_the_same_total_batch(stage: str) -> None:
    config, *settings = started(stage, "GPUS=0")
    run = load(ROOT / config, settings)
    assert (run.train.accelerator, run.train.world_size, run.train.total_batch) == ("cpu", 1, 128)
    assert run.accumulate * run.data.batch_size == 128


def test_stage_2_takes_the_checkpoint_that_is_named_else_stage_1_s_last() -> None:
    config, *settings = started("stage2", "GPUS=8", "CKPT=other.ckpt", "ARGS=data.root=x --resume", "CONFIG=mine.yaml")
    assert config == "mine.yaml"
    assert settings[3:] == ["train.init_from=other.ckpt", "data.root=x", "--resume"]
    stage1, stage2 = (load(ROOT / "experiments" / f"{stage}.yaml") for stage in ("stage1", "stage2"))
    assert Path(stage2.train.init_from) == stage1.folder / "checkpoints" / "last.ckpt"


def test_gpus_that_cannot_be_spread_evenly_are_refused() -> None:
    refused = make("stage2", "GPUS=5", "NODES=2")
    assert refused.returncode != 0
    assert "GPUS=5 is not a multiple of NODES=2" in refused.stderr


def test_without_a_launcher_the_line_for_each_node_is_told(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", "experiments/stage2.yaml", "data.root=my data"])
    with pytest.raises(ConfigError) as error:
        build_trainer(tiny_config(*TWO_NODES))
    message = str(error.value)
    assert "\n" not in message
    options = f"--nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint={socket.gethostname()}:29500"
    assert message.endswith(f"torchrun {options} scripts/train.py experiments/stage2.yaml 'data.root=my data'")


def test_nodes_are_told_before_gpus_are_counted(tiny_config: TinyConfig) -> None:
    settings = (
        "train.accelerator=gpu",
        "train.devices=8",
        "train.nodes=2",
        "data.batch_size=1",
        "train.total_batch=16",
    )
    with pytest.raises(ConfigError, match="torchrun --nnodes=2 --nproc-per-node=8"):
        build_trainer(tiny_config(*settings))


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0", "GROUP_RANK": "1"}
SLURM = {"NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2", "PROCID": "1", "LOCALID": "0", "NODEID": "1"}


@pytest.mark.parametrize(
    ("variables", "environment"),
    [
        (TORCHRUN, TorchElasticEnvironment),
        ({f"SLURM_{name}": value for name, value in (SLURM | {"JOB_NAME": "stage2"}).items()}, SLURMEnvironment),
    ],
    ids=["torchrun", "srun"],
)
def test_under_torchrun_and_slurm_the_nodes_are_joined(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], environment: type
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    trainer = build_trainer(tiny_config(*TWO_NODES))
    assert isinstance(trainer.strategy.cluster_environment, environment)  # type: ignore[attr-defined]
    assert (trainer.world_size, trainer.global_rank, trainer.num_nodes) == (2, 1, 2)


@pytest.mark.slow  # CI has two nodes in test_slurm.py
def test_the_line_that_is_told_joins_two_nodes(tiny_config: TinyConfig, tmp_path: Path) -> None:
    """Both on this machine."""
    save(tiny_config(*TWO_NODES, "train.max_steps=2"), tmp_path / "two.yaml")
    script = [sys.executable, str(ROOT / "scripts" / "train.py"), str(tmp_path / "two.yaml")]
    refused = subprocess.run(script, capture_output=True, text=True)
    assert refused.returncode == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = refused.stderr[refused.stderr.index("be one:") + len("be one:") :]
    command = shlex.split(line.replace(f"{socket.gethostname()}:29500", f"127.0.0.1:{port}"))
    nodes = [
        subprocess.Popen(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(2)
    ]
    outputs = [node.communicate(timeout=250)[0].decode() for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert (tmp_path / "runs" / "tiny" / "checkpoints" / "last.ckpt").is_file()
