#!/bin/sh
# LBF beside every peer on test B: docs/results.md.
#
#   sh benchmarks/comparison/comparison.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# Three worlds, each with a seed and eight held-out pairs of colour and shape of its own:
#   development  --seed 101 --held-out 1   settings are chosen on it, by tune.sh, first
#   test A       --seed 0   --held-out 0   what docs/results.md had before: test_a.sh
#   test B       --seed 202 --held-out 2   made here, and run once
# A region is an object's true box, colour, shape and size (true_regions.py), so that composers are
# compared and no detector, and no detector has seen the pairs that are held out.
# Sized for about an hour of a core, tuning included: REFERENCES=100 (1,600 queries), EPOCHS=12, one
# seed of every row, then SEEDS of LBF and the three rows that were best on development.  An
# interrupted comparison goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/worlds}
[ $# -gt 0 ] && shift
tuning=artifacts/comparisons/tuning/runs.parquet
[ -e "$place/$tuning" ] || sh "$here/tune.sh" "$place" "$@"
cd "$place"
cqr scenes --out test-b --seed 202 --held-out 2 --references "${REFERENCES:-100}" \
  --no-pictures --no-drawings
[ -e artifacts/test-b.h5 ] || python "$here/true_regions.py" test-b artifacts/test-b.h5
rows=$(python "$here/trials.py" best "$tuning")
cqr compare --features artifacts/test-b.h5 --data test-b --out artifacts/comparisons/test-b \
  --seeds 1 --examples 0 --set "epochs=${EPOCHS:-12}" --models "$rows" "$@"
few=$(python "$here/trials.py" few "$tuning")
cqr compare --features artifacts/test-b.h5 --data test-b --out artifacts/comparisons/test-b-seeds \
  --seeds "${SEEDS:-3}" --examples 0 --set "epochs=${EPOCHS:-12}" --models "$few" "$@"
