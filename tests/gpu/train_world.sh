#!/bin/bash
# The little world's whole training on one H100 with 16 cores, in 9 minutes: its network, then the second weights; beside
# it the decoder, then the judge. Results in $OUT: weights, lagging, judge, log.txt (all below 16 MB).
#   OUT=results tests/gpu/train_world.sh
#   OUT=results FROM=asyndm_ext/world/weights tests/gpu/train_world.sh      # on from these; decoder and judge stay theirs
#   DEVICE=cpu QUICK=1 tests/gpu/train_world.sh                             # to see whether it runs at all
# Seconds of each: DIFFUSION, LAGGING, DECODER, JUDGE. A step of 256 pictures takes 24 ms (H200), 101 where it is not
# recorded; 15 processes draw 500 scenes a second there, and a pool of 300 blocks is full after 20 s.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-gpu} work=${WORK:-$(mktemp -d)} device=${DEVICE:-cuda} quick=${QUICK:-} from=${FROM:-}
mkdir -p "$out"
python=(python3 -u -m)
common=(--device "$device" --minutes 1 --batch 256 --pool-blocks 300 --pool-refresh 3)
common+=(--processes "$([ "$from" ] && echo 15 || echo 9)")
diffusion=(--within "${DIFFUSION:-420}")
lagging=(--within "${LAGGING:-85}")
decoder=(--device "$device" --minutes 1 --decoder-batch 64 --decoder-kept 128 --processes 4 --within "${DECODER:-150}")
judge=(--batch 192 --held 12000 --processes 4 --seconds "${JUDGE:-240}" --scenes 0)
if [ "$device" = cuda ]; then
    common+=(--bfloat16 --channels-last --recorded) decoder+=(--bfloat16 --channels-last)
fi
if [ "$from" ]; then diffusion+=(--from "$from"); fi
if [ "$quick" ]; then
    common+=(--batch 32 --pool-blocks 16) diffusion+=(--steps 400) lagging+=(--steps 400)
    decoder+=(--decoder-kept 8) judge+=(--held 400)
fi
network() {
    "${python[@]}" asyndm_ext.world.train --out "$work" --stage diffusion "${common[@]}" "${diffusion[@]}" \
        --export "$out/weights" &&
        "${python[@]}" asyndm_ext.world.lagging --from "$out/weights" --out "$work/lagging" "${common[@]}" \
            "${lagging[@]}" && cp -r "$work/lagging/weights" "$out/lagging"
    echo "network: exit code $?, $SECONDS s"
}
pictures() {
    "${python[@]}" asyndm_ext.world.train --out "$work" --stage decoder "${decoder[@]}" --export "$work/decoder" &&
        "${python[@]}" asyndm_ext.world.train_judge --model "$work/decoder" --out "$out/judge" --device "$device" "${judge[@]}"
    echo "pictures: exit code $?, $SECONDS s"
}
{
    network &
    if [ -z "$from" ]; then pictures & fi
    wait
} 2>&1 | tee "$out/log.txt"
