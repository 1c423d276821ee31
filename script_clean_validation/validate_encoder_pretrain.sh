#!/usr/bin/env bash
# Validates every checkpoint of a pre-training on val_sim and exports the best one to where fine-tuning looks for it.
# usage: validate_encoder_pretrain.sh [DATASET TASK NET_DEPTH UNC CUDA_ID]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_validation_arguments pretrain "$@"

validate_and_select pretrain sim_only "$WEIGHTS_DIR/encoders-pretraining/{scene}/{task}/model-sc-{sim_chunk:.2f}.net" \
  "$DATASET" "$TASK" sim_only
