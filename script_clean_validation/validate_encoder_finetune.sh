#!/usr/bin/env bash
# Validates every checkpoint of a fine-tuning on the validation part of the flight that it was tuned on, and exports the
# best one to where the decoder stage looks for it.
# usage: validate_encoder_finetune.sh [DATASET TASK NET_DEPTH UNC CUDA_ID]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_validation_arguments finetune "$@"

validate_and_select finetune pairs \
  "$WEIGHTS_DIR/encoders-finetuning/{scene}{partial}/{domain}/{task}/model-sc-{sim_chunk:.2f}-rc-{real_chunk:.2f}.net" \
  "$DATASET" "$TASK" finetune
