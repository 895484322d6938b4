#!/usr/bin/env bash
# Make demo/bundle again: catalogue, training, build, a simulated ranking log, the prior head.
# Usage: demo/make_bundle.sh DATA [WORK]; `adprior` with the extra `build` must be on PATH.
# A checkpoint in WORK is used as it is, so that the training is not spent twice.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?usage: demo/make_bundle.sh DATA [WORK]}
work=${2:-.demo-bundle}
mkdir -p "$work"

events=(--events "$data/events.parquet" --columns demo/columns.toml)
profiles=(--profiles "$data/profiles.parquet")
split=(--cut 2022-07-01 --test-share 0.2)
origin="Open e-commerce 1.0 (Berke et al., Harvard Dataverse doi:10.7910/DVN/YGLYDY), a subset of \
1,374 users; brands derived from titles stand for advertisers, purchases for conversions; licence \
listed as CC0, not checked at its source"

# Training and building record themselves in the manifest; the commands between are told to `build`.
told=()
tell() {
  local line="$*"
  line=${line//"$data"/DATA}
  told+=(--record-command "${line//"$work/"/}")
}
run() {
  echo "+ $*"
  "$@"
}

derive=(adprior catalogue "${events[@]}" "${split[@]}" --min-users 3 --output "$work/catalogue.csv")
tell "${derive[@]}"
if [[ ! -f $work/checkpoint/training.json ]]; then
  run "${derive[@]}"
  run adprior train "${events[@]}" "${profiles[@]}" --catalogue "$work/catalogue.csv" \
    --size demo/size.toml "${split[@]}" --validation-share 0.15 --minutes 10 --batch-size 8 \
    --learning-rate 1e-4 --name-swaps 0.8 --dropout 0.05 --first-of-day --freeze-embeddings \
    --start-share 0.7 --output "$work/checkpoint"
fi
run adprior build --checkpoint "$work/checkpoint" --precision fp16-weights --origin "$origin" \
  "${told[@]}" --save-bundle "$work/bundle" --output "$work/repository"

told=()
simulate=(adprior bench simulate-log --bundle "$work/bundle" "${events[@]}" "${profiles[@]}"
  --output "$work/log.parquet")
fit=(adprior fit-head --logs "$work/log.parquet" --bundle "$work/bundle" --variant hinges --l2 3000
  --output "$work/head.onnx")
for step in simulate fit; do
  declare -n command=$step
  tell "${command[@]}"
  run "${command[@]}"
done
run adprior build --bundle "$work/bundle" --head "$work/head.onnx" "${told[@]}" \
  --save-bundle demo/bundle --output "$work/repository"
