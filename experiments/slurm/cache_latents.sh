#!/usr/bin/env bash
# Latents of one dataset by many GPUs:
#   sbatch --array=1-8 experiments/slurm/cache_latents.sh data/hdtf runs/vq_f4_256/checkpoints/last.ckpt --mask below_nose
# All tasks get the same command and share the clips by claims beside the latents.
#SBATCH --job-name=difftalk_latents
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --output=latents_%A_%a.log
set -euo pipefail
ROOT=$1 AUTOENCODER=$2
shift 2
exec python -m difftalk_pl cache-latents --data "$ROOT" --autoencoder "$AUTOENCODER" \
  --workers "$((${SLURM_CPUS_PER_TASK:-3} - 1))" "$@"
