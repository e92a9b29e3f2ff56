#!/usr/bin/env bash
# The whole job on two simulated mice: simulate, train, predict, score, draw, report. Each command is printed before it
# runs. Steps whose result is complete are skipped by the commands themselves, so a second call takes seconds.
set -euo pipefail
cd "$(dirname "$0")"
source ./setup.sh

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

run python data/simulate.py
run python train.py @presets/demo.txt --data_dir data/simulated --output_dir runs/demo
run python predict.py --data_dir data/simulated --output_dir runs/demo \
    --ds_tier validation live_main live_bonus final_main final_bonus
run python misc/visualize_training.py --output_dir runs/demo
run python evaluate.py --data_dir data/simulated --output_dir runs/demo
run python misc/visualize_performance.py --output_dir runs/demo
run python misc/visualize_traces.py --data_dir data/simulated --output_dir runs/demo
run python report.py --output_dir runs/demo
run python evaluate.py --data_dir data/simulated --output_dir runs/demo  # scored already: prints the table
printf '\nThe report: %s/runs/demo/report.html\n' "$PWD"
