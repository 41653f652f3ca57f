#!/bin/sh
# The same small budget of tuning for LBF and every peer, on the development world alone.
#
#   sh benchmarks/comparison/tune.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# Every composer on LBF's encoders is trained with the same four settings of learning rate, loss,
# dropout and --together (trials.py), and scored on development's own test split, whose pairs of
# colour and shape are held out in no other world.  What is tuned on is never reported.
# An interrupted tuning goes on; comparison.sh takes the trials that every row has finished.
# Every run: FOLDER/artifacts/comparisons/tuning/runs.parquet.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/worlds}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --out development --seed 101 --held-out 1 --references "${REFERENCES:-100}" \
  --no-pictures --no-drawings
[ -e artifacts/development.h5 ] ||
  python "$here/true_regions.py" development artifacts/development.h5
cqr compare --features artifacts/development.h5 --data development \
  --out artifacts/comparisons/tuning --seeds 1 --examples 0 \
  --set muon_lr=0 --set "epochs=${EPOCHS:-12}" --models "$(python "$here/trials.py" tried)" "$@"
# What did best, by two rates of Muon.
cqr compare --features artifacts/development.h5 --data development \
  --out artifacts/comparisons/tuning-muon --seeds 1 --examples 0 --set "epochs=${EPOCHS:-12}" \
  --models "$(python "$here/trials.py" muon artifacts/comparisons/tuning/runs.parquet)" "$@"
