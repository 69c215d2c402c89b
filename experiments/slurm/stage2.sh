#!/bin/bash
# Stage 2 on two nodes of 8 GPUs, from stage 1's last checkpoint or from train.init_from=FILE; called as stage1.sh.
#SBATCH --job-name=stage2
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --nodes=2
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

source experiments/slurm/common.sh || { echo "submit this in the project's folder"; exit 2; }
train "${CONFIG:-experiments/stage2.yaml}" "$@"
