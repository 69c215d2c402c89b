#!/bin/bash
# Stage 1 on one node of 8 GPUs. In the project's folder: sbatch experiments/slurm/stage1.sh data.root=FOLDER key=value ...
#SBATCH --job-name=stage1
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --nodes=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

source experiments/slurm/common.sh || { echo "submit this in the project's folder"; exit 2; }
train "${CONFIG:-experiments/stage1.yaml}" "$@"
