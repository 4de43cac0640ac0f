#!/usr/bin/env bash
# All steps once, each the command that a user would type: bash experiments/demo/run.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python}
run=runs/demo
# Large tensors stay in the process instead of going back to the system at every step: a fifth faster on CPUs.
export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=100000000

step() {
  printf '\n\033[1m$ python -m difftalk_pl %s\033[0m\n' "$*"
  "$python" -m difftalk_pl "$@"
}

rm -rf "$run" data/demo/latents
step synthesize --out data/demo --clips 30 --seconds 10
step synthesize --out data/demo --clips 6 --seconds 10 --first_identity 900 # people that the weights never met
step fit -c experiments/demo/syncnet.yaml # the judge of lip sync, on drawn faces as well
step fit -c experiments/demo/autoencoder.yaml
step cache-latents --data data/demo --autoencoder "$run/autoencoder/checkpoints/last.ckpt"
step fit -c experiments/demo/diffusion.yaml
step test -c experiments/demo/autoencoder.yaml
step test -c experiments/demo/diffusion.yaml
step table "$run/diffusion" --intervals true --out "$run/table.md"
step synthesize --out data/demo_person --clips 1 --seconds 5 --size 256 --first_identity 900
step animate --checkpoint "$run/diffusion/checkpoints/last.ckpt" --video data/demo_person/clips/synthetic_900/video.mp4 \
  --audio data/demo/clips/synthetic_901/audio.wav --out "$run/animated.mp4"
step watermark "$run/animated.mp4"

cat <<EOF

scores:        $run/table.md, of $run/diffusion/results.json (and $run/autoencoder/results.json)
video:         $run/animated.mp4
to look at:    $run/diffusion/samples/test_synthetic_900*: true, masked, reference and generated frames (time runs to the
               right), the same as a video with sound, and the offset curve of lip sync
EOF
