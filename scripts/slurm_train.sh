#!/bin/bash
# Two machines of eight GPUs under SLURM, one task for each GPU: sbatch scripts/slurm_train.sh RECIPE [KEY=VALUE]...
# The ranks join the job step by themselves. The run folder must be on a disk that all machines see. Not run on a GPU.
#SBATCH --job-name=memfactory
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@300
set -euo pipefail
if [ "$#" -lt 1 ]; then echo "usage: sbatch scripts/slurm_train.sh RECIPE [KEY=VALUE]..." >&2; exit 2; fi
exec srun memfactory train "$@"
