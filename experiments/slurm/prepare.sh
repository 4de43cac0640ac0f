#!/usr/bin/env bash
# Clips of one dataset by many tasks: sbatch --array=1-16 experiments/slurm/prepare.sh data/hdtf_clips/clips.csv data/hdtf
# All tasks get the same command. They share the work by claims in ROOT/claims, so none needs to know its number; a task
# that is killed loses only the clips that it had in hand, and a task that comes later takes part.
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
exec python -m difftalk_pl prepare "$SOURCE" --out "$ROOT" --workers "${SLURM_CPUS_PER_TASK:-1}" "$@"
