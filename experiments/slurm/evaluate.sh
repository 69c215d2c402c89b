#!/bin/bash
# An evaluation on one node of 8 GPUs: sbatch experiments/slurm/evaluate.sh --ckpt FILE BENCHMARK.yaml data.root=FOLDER ...
#SBATCH --job-name=evaluate
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --nodes=1
#SBATCH --time=08:00:00
#SBATCH --output=%x-%j.log

source experiments/slurm/common.sh || { echo "submit this in the project's folder"; exit 2; }
ranks scripts/evaluate.py "${TASKS[@]}" "$@"
