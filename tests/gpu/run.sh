#!/bin/bash
# The little world's training on one H100 with 16 cores, in 8 minutes at the most. Results: weights, log (below 16 MB).
#   OUT=results tests/gpu/run.sh [OPTIONS OF asyndm_ext.world.train]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-gpu} work=$(mktemp -d)
mkdir -p "$out"
train=(python3 -u -m asyndm_ext.world.train --out "$work" --device cuda --bfloat16 --channels-last --batch 256
    --steps 2500 --pool-refresh 2 --processes 15 --minutes 1 "$@")
timeout "${LIMIT:-480}" "${train[@]}" --export "$out/weights" 2>&1 | tee "$out/log.txt" ||
    "${train[@]}" --stage autoencoder --export "$out/weights" 2>&1 | tee -a "$out/log.txt" # what there is by then
