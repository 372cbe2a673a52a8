#!/bin/bash
# The little world's whole training on one H100 with 16 cores, in 8 minutes: its network, then the second weights; beside
# it the decoder, then the judge. Results in $OUT: weights, lagging, judge, log.txt (all below 16 MB).
#   OUT=results tests/gpu/train_world.sh
#   DEVICE=cpu QUICK=1 tests/gpu/train_world.sh            # to see whether it runs at all
# Seconds of each: DIFFUSION, LAGGING, DECODER, JUDGE. Steps are as long as the processor takes to launch their kernels (80 ms with
# 256 pictures on an H100, 93 ms with 1024), so batches are large.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-gpu} work=${WORK:-$(mktemp -d)} device=${DEVICE:-cuda} quick=${QUICK:-}
mkdir -p "$out"
python=(python3 -u -m)
common=(--device "$device" --minutes 1)
diffusion=(--batch 1024 --pool-blocks 500 --pool-refresh 3 --processes 9 --within "${DIFFUSION:-360}")
lagging=(--batch 1024 --pool-blocks 500 --pool-refresh 3 --processes 9 --within "${LAGGING:-80}")
decoder=(--decoder-batch 64 --decoder-kept 128 --processes 4 --within "${DECODER:-150}")
judge=(--batch 192 --held 12000 --processes 4 --seconds "${JUDGE:-240}" --scenes 0)
if [ "$device" = cuda ]; then common+=(--bfloat16 --channels-last); fi
if [ "$quick" ]; then
    diffusion+=(--pool-blocks 16 --steps 400) lagging+=(--pool-blocks 16 --steps 400) decoder+=(--decoder-kept 8)
    judge+=(--held 400)
fi
network() {
    "${python[@]}" asyndm_ext.world.train --out "$work" --stage diffusion "${common[@]}" "${diffusion[@]}" \
        --export "$out/weights" &&
        "${python[@]}" asyndm_ext.world.lagging --from "$out/weights" --out "$work/lagging" "${common[@]}" \
            "${lagging[@]}" && cp -r "$work/lagging/weights" "$out/lagging"
    echo "network: exit code $?, $SECONDS s"
}
pictures() {
    "${python[@]}" asyndm_ext.world.train --out "$work" --stage decoder "${common[@]}" "${decoder[@]}" \
        --export "$work/decoder" &&
        "${python[@]}" asyndm_ext.world.train_judge --model "$work/decoder" --out "$out/judge" --device "$device" "${judge[@]}"
    echo "pictures: exit code $?, $SECONDS s"
}
{
    network &
    pictures &
    wait
} 2>&1 | tee "$out/log.txt"
