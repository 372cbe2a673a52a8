#!/bin/bash
# The little world's training on one H100 with 16 cores, in 8 minutes at the most. Results: weights, log (below 16 MB).
#   OUT=results tests/gpu/train_world.sh [OPTIONS OF asyndm_ext.world.train]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-gpu} work=$(mktemp -d)
mkdir -p "$out"
train=(python3 -u -m asyndm_ext.world.train --out "$work" --device cuda --bfloat16 --channels-last --batch 256
    --steps 2500 --pool-refresh 2 --processes 15 --minutes 0.5 "$@")
{
    timeout "${DECODER:-120}" "${train[@]}" --stage decoder || true
    timeout "${WHOLE:-360}" "${train[@]}" --export "$out/weights" ||
        "${train[@]}" --steps 0 --decoder-steps 0 --export "$out/weights" # what there is by then
} 2>&1 | tee "$out/log.txt"
