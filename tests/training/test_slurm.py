"""The job files of experiments/slurm/ under a stand-in SLURM: ranks train together, and a job that stops goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment

from trex2_lightning.config import Config, load, save
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.training.fit import train
from trex2_lightning.training.trainer import build_trainer

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "experiments" / "slurm"
TIMEOUT = 250  # seconds; a rank that waits for another one would wait for ever
TinyConfig = Callable[..., Config]

# Runs a copy of a job file with what it and the command line ask for. Where STOP_AT names a file, the time is nearly up
# once that file is there: the job is told so by --signal, and where it is queued again, it is killed and started anew.
SBATCH = """
import os, re, shutil, signal, subprocess, sys, time
from itertools import takewhile
from pathlib import Path

given = list(takewhile(lambda word: word.startswith("--"), sys.argv[1:]))
job, *arguments = sys.argv[1 + len(given):]
lines = re.findall("^#SBATCH (--.*)$", Path(job).read_text(), re.MULTILINE)
asked = dict((line.split("=") + [""])[:2] for line in [*lines, *given])
known = "job-name nodes ntasks-per-node gres cpus-per-task mem time signal requeue open-mode output".split()
assert {name.removeprefix("--") for name in asked} <= set(known), asked
slurm = {
    "JOB_ID": os.environ["JOB_ID"], "JOB_NAME": asked["--job-name"], "NNODES": asked["--nodes"],
    "NTASKS_PER_NODE": asked["--ntasks-per-node"], "CPUS_PER_TASK": asked["--cpus-per-task"], "PROCID": "0",
    "NTASKS": str(int(asked["--nodes"]) * int(asked["--ntasks-per-node"])), "NODELIST": "127.0.0.1",
}
environment = os.environ | {"SLURM_" + name: value for name, value in slurm.items()}
spool = Path(os.environ["SPOOL"])
copy, requeued, stop_at = spool / "slurm_script", spool / "requeued", os.environ.get("STOP_AT")
shutil.copy(job, copy)
mode = "a" if asked.get("--open-mode") == "append" else "w"
while True:
    output = open(asked["--output"], mode)
    process = subprocess.Popen(
        ["bash", copy, *arguments], env=environment, stdout=output, stderr=output, start_new_session=True
    )
    (spool / "job").write_text(str(process.pid))
    while process.poll() is None:
        time.sleep(0.05)
        if stop_at and Path(stop_at).exists():
            stop_at = None
            target, name = re.match("(B:)?([A-Z0-9]+)@", asked["--signal"]).groups()
            assert target, "without B: the ranks get the signal, not the job file"
            process.send_signal(getattr(signal, "SIG" + name))
        if requeued.exists():
            os.killpg(process.pid, signal.SIGKILL)
    if not requeued.exists():
        sys.exit(process.returncode)
    assert "--requeue" in asked
    requeued.unlink()
    environment["SLURM_RESTART_COUNT"] = "1"
"""
SCONTROL = """
import os, sys
from pathlib import Path

assert sys.argv[1:] == ["requeue", os.environ["SLURM_JOB_ID"]], sys.argv
answer = os.environ["SCONTROL"]
Path(os.environ["SPOOL"], answer).touch()
sys.exit(answer == "refused")
"""
# A process for each task of the job; one that fails ends the others, if asked to.
SRUN = """
import os, subprocess, sys, time

words = sys.argv[1:]
options = {words.pop(0) for word in sys.argv[1:] if words[0] == word and word.startswith("--")}
assert options == {"--kill-on-bad-exit=1", "--cpus-per-task=" + os.environ["SLURM_CPUS_PER_TASK"]}, options
ranks = []
for node in range(int(os.environ["SLURM_NNODES"])):
    for local in range(int(os.environ["SLURM_NTASKS_PER_NODE"])):
        place = {"SLURM_PROCID": str(len(ranks)), "SLURM_LOCALID": str(local), "SLURM_NODEID": str(node)}
        ranks.append(subprocess.Popen(words, env=os.environ | place))
while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
    time.sleep(0.05)
for rank in ranks:
    rank.poll() is None and rank.kill()
sys.exit(max(abs(rank.wait()) for rank in ranks))
"""
# What PYTHON stands for: runs the script, and each rank reports its steps, the images of each, and its weights. A rank
# whose job is to be stopped waits in its third step for what becomes of it.
RECORDER = """
import hashlib, json, os, runpy, sys, time
from pathlib import Path
from trex2_lightning.training.module import DetectionModule

spool, trained, evaluated = Path(os.environ["SPOOL"]), [], []
stopped = "STOP_AT" in os.environ and "SLURM_RESTART_COUNT" not in os.environ
train, evaluate = DetectionModule.training_step, DetectionModule.validation_step

def training_step(self, batch, batch_idx):
    while stopped and self.global_step == 2 and not (spool / "refused").exists():
        time.sleep(0.05)
    trained.append([self.global_step, [target.image_id for target in batch.targets]])
    return train(self, batch, batch_idx)

def validation_step(self, batch, *rest):
    evaluated.extend(target.image_id for target in batch.targets)
    return evaluate(self, batch, *rest)

def teardown(self, stage):
    digest = hashlib.sha256()
    for tensor in self.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    content = {"world": self.trainer.world_size, "trained": trained, "evaluated": evaluated}
    content["digest"] = digest.hexdigest()
    (spool / f"rank-{self.global_rank}.json").write_text(json.dumps(content))

DetectionModule.training_step, DetectionModule.validation_step = training_step, validation_step
DetectionModule.teardown = teardown
sys.argv = sys.argv[1:]
sys.path[0] = "scripts"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Cluster:
    """A folder with `sbatch`, `srun` and `scontrol`, in which the project's commands can be called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "project", folder / "log"
        self._bin, self._spool = folder / "bin", folder / "spool"
        for new in (self.folder, self._bin, self._spool):
            new.mkdir()
        for name in ("scripts", "experiments"):
            (self.folder / name).symlink_to(ROOT / name)
        for name, script in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "recorder": RECORDER}.items():
            (self._bin / name).write_text(f"#!{sys.executable}{script}")
            (self._bin / name).chmod(0o755)

    def submit(self, job: str, options: tuple[str, ...], *arguments: str, **environment: str) -> list[dict]:
        """What the ranks of the last start report."""
        for report in self._spool.glob("rank-*"):
            report.unlink()
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_"))}
        own |= {
            "PATH": f"{self._bin}:{own['PATH']}",
            "SPOOL": str(self._spool),
            "JOB_ID": f"7{_free_port() - 15000:04}",
        }
        own |= {"PYTHON": str(self._bin / "recorder"), "OMP_NUM_THREADS": "1", **environment}
        command = ["sbatch", f"--output={self.log}", *options, f"experiments/slurm/{job}.sh", *arguments]
        try:
            subprocess.run(
                command, cwd=self.folder, env=own, timeout=TIMEOUT, capture_output=True, text=True, check=True
            )
        except subprocess.CalledProcessError as error:
            raise AssertionError(error.stderr + self.log.read_text()[-3000:]) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int((self._spool / "job").read_text()), signal.SIGKILL)
        return [json.loads(report.read_text()) for report in sorted(self._spool.glob("rank-*"))]


def _free_port() -> int:
    """One that SLURM's job ids stand for in Lightning: 15000 and their last four digits."""
    for port in range(15000 + os.getpid() % 9000, 25000):
        with socket.socket() as free:
            if free.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "cluster").mkdir()
    return Cluster(tmp_path / "cluster")


def settings(config: Config, path: Path) -> dict[str, str]:
    """The experiment as a file, without devices: the job says them."""
    save(config, path)
    return {"CONFIG": str(path)}


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.ckpt"))


def steps(rank: dict) -> list[int]:
    return [step for step, _ in rank["trained"]]


TWO = ("data.batch_size=1", "train.total_batch=2", "train.devices=2")
ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gres=gpu:0")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gres=gpu:0")


@pytest.mark.ci
def test_a_job_whose_time_is_up_is_queued_again_and_goes_on(
    cluster: Cluster, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    config = tiny_config(*TWO, "train.save_every=2", "train.val_every=5")
    last = config.folder / "checkpoints" / "last.ckpt"
    own = settings(config, tmp_path / "tiny.yaml") | {"STOP_AT": str(last), "SCONTROL": "requeued"}
    one, other = cluster.submit("stage1", ONE_NODE, "train.max_steps=5", **own)
    assert (one["world"], other["world"]) == (2, 2)
    assert one["digest"] == other["digest"]
    assert steps(one) == steps(other) == [2, 3, 4]
    assert not any(set(a) & set(b) for (_, a), (_, b) in zip(one["trained"], other["trained"], strict=True))
    log = " ".join(cluster.log.read_text().split())
    assert log.count("total batch 2 = 2 devices x 1 images x 1 accumulated") == 2
    assert log.count("going on from") == 1
    assert torch.load(last, weights_only=True)["global_step"] == 5
    assert checkpoints(tmp_path) == [f"runs/tiny/checkpoints/{name}.ckpt" for name in ("best", "last", "previous")]


@pytest.mark.slow
def test_a_job_on_two_nodes_goes_on_when_it_is_submitted_again(
    cluster: Cluster, tiny_config: TinyConfig, checkpoint: Path, tmp_path: Path
) -> None:
    """The first is told that its time is up and cannot be queued again: it trains for as long as it can."""
    config = tiny_config(*TWO, "name=two", "train.save_every=2", "train.rhythm={visual: 2, text: 1}")
    last = config.folder / "checkpoints" / "last.ckpt"
    own = settings(config, tmp_path / "two.yaml")
    start = f"train.init_from={checkpoint}"
    stop = {"STOP_AT": str(last), "SCONTROL": "refused"}
    one, other = cluster.submit("stage2", TWO_NODES, start, "train.max_steps=3", **own, **stop)
    assert steps(one) == steps(other) == [0, 1, 2]
    assert "starting from the weights of" in cluster.log.read_text()
    assert "submit it anew" in cluster.log.read_text()
    one, other = cluster.submit("stage2", TWO_NODES, start, "train.max_steps=5", **own)
    assert (one["world"], other["world"]) == (2, 2)
    assert one["digest"] == other["digest"]
    assert steps(one) == steps(other) == [3, 4]
    assert torch.load(last, weights_only=True)["global_step"] == 5
    assert checkpoints(config.folder) == [
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/previous.ckpt")
    ]


@pytest.mark.ci
def test_an_evaluation_is_shared_by_the_ranks(cluster: Cluster, checkpoint: Path) -> None:
    ranks = cluster.submit("evaluate", ONE_NODE, "--ckpt", str(checkpoint), "eval.batch_size=1", "--protocol", "text")
    assert [rank["world"] for rank in ranks] == [2, 2]
    assert sorted(set(ranks[0]["evaluated"] + ranks[1]["evaluated"])) == [1, 2, 3]
    assert not set(ranks[0]["evaluated"]) >= {1, 2, 3}
    assert list(checkpoint.parents[1].rglob("evaluation.json"))


@pytest.mark.ci
def test_wrong_settings_end_the_job_with_one_line(cluster: Cluster, tiny_config: TinyConfig, tmp_path: Path) -> None:
    own = settings(tiny_config(*TWO), tmp_path / "tiny.yaml")
    with pytest.raises(AssertionError, match=r"^error: .*Key 'max_stps' not in 'TrainConfig'.*\n$"):
        cluster.submit("stage1", ONE_NODE, "train.max_stps=5", **own)


@pytest.mark.parametrize(("job", "nodes"), [("stage1", 1), ("stage2", 2)])
def test_a_job_asks_for_what_its_experiment_trains_on(job: str, nodes: int) -> None:
    text = (JOBS / f"{job}.sh").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gres"]) == (str(nodes), "8", "gpu:8")
    file = re.search(r"CONFIG:-(.*?)\}", text)
    assert file is not None
    config = load(ROOT / file[1], ["train.devices=8", f"train.nodes={nodes}"])
    assert config.name == asked["job-name"] == job
    assert config.accumulate >= 1


def test_lightning_neither_saves_nor_reads_a_checkpoint_of_its_own(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another run it would read it, in place of what the run starts from."""
    task = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "stage1"}
    for name, value in task.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_text("of another run")
    config = tiny_config("train.max_steps=1")
    module = train(config)
    assert evaluate(config, module, "val").rows
    environment = build_trainer(tiny_config(*TWO, "name=other")).strategy.cluster_environment  # type: ignore[attr-defined]
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
