#!/usr/bin/env bash
# Validates every checkpoint of the end-to-end refinements on the validation part of the flight that they were refined on,
# and exports the best one of each.
# usage: validate_encoder_e2e.sh [DATASET TASK NET_DEPTH UNC CUDA_ID]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_validation_arguments e2e "$@"
[ "$TASK" = coord ] || fail "poses come out of the task coord, not of '$TASK'"

validate_and_select e2e "" "$WEIGHTS_DIR/e2e/{name}/model.net" "$DATASET" "$TASK" e2e
