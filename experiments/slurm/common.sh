# What the job files share. SLURM runs a copy of a job file, in the folder that sbatch was called in: the project's.

set -euo pipefail
PYTHON=${PYTHON:-.venv/bin/python}
command -v "$PYTHON" >/dev/null || { echo "there is no $PYTHON: make install, or PYTHON=FILE in front"; exit 2; }
: "${SLURM_NTASKS_PER_NODE:?submit this by sbatch, with --ntasks-per-node}"
# What the job asked for, before the arguments of its call, so that these can say otherwise.
TASKS=(train.devices="$SLURM_NTASKS_PER_NODE" train.nodes="$SLURM_NNODES" data.num_workers=$((SLURM_CPUS_PER_TASK - 1)))

ranks() { # SCRIPT ARGUMENT ...: a process for each task
    # Newer SLURMs do not hand --cpus-per-task on: a rank and its loader would share one core.
    srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" "$PYTHON" "$@"
}

train() { # CONFIG key=value ...: start the run, or go on with it where its folder has a checkpoint
    local config=$1 folder resume="" pid code
    shift
    # Decided once for all ranks, as another node may see the file later.
    folder=$("$PYTHON" scripts/train.py "$config" --folder "${TASKS[@]}" "$@") || { echo "$folder"; exit 2; }
    if [[ -f $folder/checkpoints/last.ckpt ]]; then resume=--resume; fi
    trap requeue USR1 # SLURM sends it before the time is up: --signal=B:USR1@SECONDS
    ranks scripts/train.py "$config" $resume "${TASKS[@]}" "$@" &
    pid=$!
    while true; do
        code=0
        wait "$pid" || code=$?
        kill -0 "$pid" 2>/dev/null || return "$code" # else the signal ended the waiting, and training goes on
    done
}

requeue() {
    scontrol requeue "$SLURM_JOB_ID" || echo "this job cannot be queued again: submit it anew, and it goes on"
}
