#!/usr/bin/env bash
# Validates every checkpoint of the decoder trainings and exports the best one of each.
# usage: validate_decoder_finetune.sh [DATASET TASK NET_DEPTH UNC CUDA_ID]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_validation_arguments decoder "$@"
[ "$TASK" = coord ] || fail "the decoder is trained for the task coord only, not for '$TASK'"

validate_and_select decoder "" "$WEIGHTS_DIR/decoders/{name}/model.net" "$DATASET" "$TASK" decoder_coord_free_depth_normal
