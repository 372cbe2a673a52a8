#!/bin/bash
# What only a GPU can tell, on one card in 6 minutes at the most; needs Python with torch, numpy and tqdm, and loads nothing.
#   OUT=results tests/gpu/run.sh
#   DEVICE=cpu MODELS=sd21 LATENTS=32 DTYPES=float32 tests/gpu/run.sh      # to see whether it runs at all
# At most a third of the time goes to the checks. Results: checks.json (the same numbers as on the CPU, what waits, launches
# by the profiler), bench.json (a line of JSON for each network, precision and size), log.txt.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-gpu} device=${DEVICE:-cuda}
read -ra models <<<"${MODELS:-sd21 sdxl sd3 flux}"
read -ra latents <<<"${LATENTS:-128 64}"
read -ra dtypes <<<"${DTYPES:-float16 bfloat16}"
mkdir -p "$out"
end=$((SECONDS + ${SECONDS_IN_ALL:-350}))
failed=0
left() { local rest=$((end - SECONDS)); echo $((rest > 1 ? rest : 1)); }
report() { # what it was, its exit code
    echo "== $1: $([ "$2" = 0 ] && echo done || { [ "$2" = 124 ] && echo "no time left" || echo "FAILED ($2)"; }), $(left) s left"
    [ "$2" = 0 ] || failed=1
}
main() {
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
    timeout "$(($(left) / 3))" python3 -u -m tests.gpu.on_device --device "$device" --models "${models[@]}" \
        --json "$out/checks.json"
    report checks $?
    for dtype in "${dtypes[@]}"; do
        for latent in "${latents[@]}"; do
            for model in "${models[@]}"; do
                timeout "$(left)" python3 -u -m asyndm_ext bench --devices "$device" --models "$model" --dtype "$dtype" \
                    --latent "$latent" --batches 1 4 --pairs "${PAIRS:-6}" --no-naive --json \
                    >"$out/bench.part"
                report "$model, $dtype, latent $latent" $?
                [ -s "$out/bench.part" ] && tr -d '\n' <"$out/bench.part" | sed 's/$/\n/' >>"$out/bench.json"
                rm "$out/bench.part"
            done
        done
    done
    return $failed
}
main 2>&1 | tee "$out/log.txt"
