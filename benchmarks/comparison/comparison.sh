#!/bin/sh
# LBF beside every peer on test B: docs/results.md.
#
#   sh benchmarks/comparison/comparison.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# Three worlds, each with a seed and eight held-out pairs of colour and shape of its own:
#   development  --seed 101 --held-out 1   settings are chosen on it, by tune.sh, first
#   test A       --seed 0   --held-out 0   docs/history.md: test_a.sh
#   test B       --seed 707 --held-out 2   made here, and run once
# A region is an object's true box, colour, shape and size (true_regions.py), so that composers are
# compared and no detector, and no detector has seen the pairs that are held out.
# Sized for two or three hours of a core, without the tuning: REFERENCES=1000 (16,000 queries, as the
# original CSS), EPOCHS=3, one seed of every row on LBF's encoders, SEEDS of a few of them, and one
# of every row on plain encoders.  An interrupted comparison goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/worlds}
[ $# -gt 0 ] && shift
tuning=artifacts/comparisons/tuning/runs.parquet
muon=artifacts/comparisons/tuning-muon/runs.parquet
[ -e "$place/$muon" ] || sh "$here/tune.sh" "$place" "$@"
cd "$place"
cqr scenes --out test-b --seed 707 --held-out 2 --references "${REFERENCES:-1000}" \
  --no-pictures --no-drawings
[ -e artifacts/test-b.h5 ] || python "$here/true_regions.py" test-b artifacts/test-b.h5
compare() {
  out=artifacts/comparisons/$1
  shift
  cqr compare --features artifacts/test-b.h5 --data test-b --out "$out" --examples 0 \
    --set muon_lr=0 --set "epochs=${EPOCHS:-3}" "$@"
}
compare test-b --seeds 1 --models "$(python "$here/trials.py" best "$tuning")" "$@"
compare test-b-seeds --seeds "${SEEDS:-5}" --models "$(python "$here/trials.py" few "$tuning")" "$@"
compare test-b-muon --seeds "${SEEDS:-5}" --models "lbf that locates by muon=lbf:muon_lr=0.012" "$@"
compare test-b-by-muon-seeds --seeds "${SEEDS:-5}" \
  --models "$(python "$here/trials.py" few-by-muon "$tuning" "$muon")" "$@"
compare test-b-by-muon --seeds 1 \
  --models "$(python "$here/trials.py" rest-by-muon "$tuning" "$muon")" "$@"
compare test-b-plain --seeds 1 --models "$(python "$here/trials.py" plain "$tuning")" "$@"
