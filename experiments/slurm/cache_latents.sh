#!/usr/bin/env bash
# Latents of one dataset on all GPUs of a node (of several with --nodes N):
#   sbatch experiments/slurm/cache_latents.sh data/hdtf runs/vq_f4/checkpoints/last.ckpt --mask below_nose
#SBATCH --job-name=difftalk_latents
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --output=latents_%j.log
set -euo pipefail
DATA=$1 AUTOENCODER=$2
shift 2
srun python -m difftalk_pl cache-latents --data "$DATA" --autoencoder "$AUTOENCODER" --devices "$SLURM_NTASKS_PER_NODE" \
  --num_nodes "$SLURM_NNODES" "$@"
