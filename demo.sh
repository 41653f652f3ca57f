#!/bin/sh
# From nothing to Recall@K: every step is the real command, printed before it runs.
# `make demo` sets up the environment first.  DEMO chooses the folder.
set -eu
place=${DEMO:-artifacts/demo}
mkdir -p "$place"
cd "$place"

run() {
  printf '\n$ %s\n' "$*"
  "$@"
}

run cqr scenes --out fashion --references 200 --test-references 100 --no-drawings
run cqr extract --images fashion --k 36
run cqr train --features artifacts/fashion.h5 --epochs 7
run cqr evaluate
printf '\nEverything is in %s\nAsk it on a page:\n\n  cd %s && %s serve\n' \
  "$(pwd)" "$(pwd)" "$(command -v cqr)"
