#!/bin/sh
# The learning rate of each peer of test_a.sh: recall on held-out training queries.
#
#   sh benchmarks/comparison/test_a_tune.sh FOLDER [--epochs 1 ...]
#       what follows FOLDER goes to `cqr train`
#
# FOLDER is that of test_a.sh, once it has extracted.  A line for each model and rate: the mean
# of R@1, 5, 10 and 50 in the best epoch, and its R@1.  The test queries are not looked at.
set -eu
cd "$1"
shift
try() {  # try NAME MODEL..., with each learning rate
  name=$1
  shift
  for lr in 0.0005 0.002 0.005; do
    mkdir -p "tuning/$name-$lr"
    cd "tuning/$name-$lr"
    cqr train --features ../../artifacts/fashion.h5 \
      --epochs 15 --batch 512 --together 4 --lr $lr --muon-lr 0 "$@"
    python - "$name" $lr artifacts/runs/*/log.jsonl <<'PYTHON'
import json, sys
best = max(map(json.loads, open(sys.argv[3])), key=lambda line: line["score"])
print(*sys.argv[1:3], f"{best['score']:.2f} {best['recall']['1']:.2f}")
PYTHON
    cd ../..
  done
}
for model in compose-ae tirg mrn film relationship parameter-hashing show-and-tell concatenation \
  image-only text-only; do
  try $model --model $model --input whole "$@"
done
for model in compose-ae tirg mrn; do
  try $model-mapped --model $model --input regions --set local=mlp "$@"
done
try tirg-regions --model tirg --input regions "$@"
