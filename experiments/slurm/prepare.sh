#!/usr/bin/env bash
# Prepare one dataset by many tasks: sbatch --array=1-16 experiments/slurm/prepare.sh data/hdtf.csv data/hdtf
# Each task prepares its own part of the clips. Submit the same array again to make what is missing.
#SBATCH --job-name=difftalk_prepare
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --output=prepare_%A_%a.log
set -euo pipefail
SOURCE=$1 ROOT=$2
shift 2
export OMP_NUM_THREADS=1
exec python -m difftalk_pl prepare "$SOURCE" --out "$ROOT" --workers "${SLURM_CPUS_PER_TASK:-1}" \
  --shard "${SLURM_ARRAY_TASK_ID:-0}/${SLURM_ARRAY_TASK_COUNT:-1}" "$@"
