#!/usr/bin/env bash
# Make demo/bundle again: catalogue, training, build, a simulated ranking log, the prior head.
# Usage: demo/make_bundle.sh DATA [WORK]; `adprior` with the extra `build` must be on PATH.
# A checkpoint that WORK already holds is used again, without training.
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

# The manifest has the commands of the training and the build; --record-command adds the others.
recorded=()
record() {
  local line="$*"
  line=${line//"$data"/DATA}
  recorded+=(--record-command "${line//"$work/"/}")
}
run() {
  echo "+ $*"
  "$@"
}

derive=(adprior catalogue "${events[@]}" "${split[@]}" --min-users 3 --output "$work/catalogue.csv")
record "${derive[@]}"
if [[ ! -f $work/checkpoint/training.json ]]; then
  run "${derive[@]}"
  run adprior train "${events[@]}" "${profiles[@]}" --catalogue "$work/catalogue.csv" \
    --size demo/size.toml "${split[@]}" --validation-share 0.15 --minutes 10 --batch-size 8 \
    --learning-rate 1e-4 --name-swaps 0.8 --dropout 0.05 --first-of-day --freeze-embeddings \
    --start-share 0.7 --output "$work/checkpoint"
fi
run adprior build --checkpoint "$work/checkpoint" --precision fp16-weights --origin "$origin" \
  "${recorded[@]}" --save-bundle "$work/bundle" --output "$work/repository"

recorded=()
simulate=(adprior bench simulate-log --bundle "$work/bundle" "${events[@]}" "${profiles[@]}"
  --output "$work/log.parquet")
fit=(adprior fit-head --logs "$work/log.parquet" --bundle "$work/bundle" --variant hinges --l2 3000
  --output "$work/head.onnx")
for step in simulate fit; do
  declare -n command=$step
  record "${command[@]}"
  run "${command[@]}"
done
run adprior build --bundle "$work/bundle" --head "$work/head.onnx" "${recorded[@]}" \
  --save-bundle demo/bundle --output "$work/repository"
