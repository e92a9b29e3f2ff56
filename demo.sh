#!/usr/bin/env bash
# The whole job on two simulated mice: simulate, train, predict, score, map receptive fields, tuning for direction and
# size, and the influence of the surround; report. Each command is printed before it runs. Long steps whose result is
# complete are skipped by the commands themselves, so a second call redoes tables and figures only.
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
run python misc/visualize_groups.py --output_dir runs/demo
run python misc/visualize_traces.py --data_dir data/simulated --output_dir runs/demo
run python tuning_retinotopy/predict_noise.py --output_dir runs/demo
run python tuning_retinotopy/fit_aRFs.py --output_dir runs/demo
run python tuning_retinotopy/visualize_aRFs.py --output_dir runs/demo
run python tuning_retinotopy/compare_truth.py --data_dir data/simulated --output_dir runs/demo
run python tuning_direction/predict_gratings.py --output_dir runs/demo
run python tuning_direction/estimate_selectivity.py --output_dir runs/demo
run python tuning_direction/compare_truth.py --data_dir data/simulated --output_dir runs/demo
for source in recording twin animal; do
    run python tuning_direction/estimate_selectivity.py --data_dir data/simulated --output_dir runs/demo --source $source
done
run python tuning_direction/visualize_tuning_curves.py --output_dir runs/demo --stimulus gabors
run python tuning_direction/compare_recorded.py --output_dir runs/demo
run python tuning_feedbackRF/predict_gratings.py --output_dir runs/demo --neurons 0-79 --sizes 10 20 30 45 70 --phases 1
run python tuning_feedbackRF/estimate_size_tuning.py --output_dir runs/demo
run python tuning_feedbackRF/visualize_size_tuning.py --output_dir runs/demo
run python tuning_feedbackRF/compare_truth.py --data_dir data/simulated --output_dir runs/demo
run python tuning_contextual_modulation/predict_gratings.py --output_dir runs/demo --neurons 0-79 --sizes own --phases 2
run python tuning_contextual_modulation/estimate_contextual_modulation.py --output_dir runs/demo
run python tuning_contextual_modulation/visualize_contextual_modulation.py --output_dir runs/demo
run python tuning_contextual_modulation/compare_truth.py --data_dir data/simulated --output_dir runs/demo
run python report.py --output_dir runs/demo
run python evaluate.py --data_dir data/simulated --output_dir runs/demo  # scored already: prints the table
printf '\nThe report: %s/runs/demo/report.html\n' "$PWD"
