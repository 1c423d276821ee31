#!/usr/bin/env bash
# Validates every checkpoint of the pairs-only trainings and exports the best one to where their decoder looks for it.
# usage: validate_encoder_pretrain_pairwise_only.sh [DATASET TASK NET_DEPTH UNC CUDA_ID]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_validation_arguments pairwise_only "$@"

validate_and_select pretrain pairs \
  "$WEIGHTS_DIR/encoders-pretraining/{scene}-pairwise-only/{domain}/{task}/model-sc-{sim_chunk:.2f}-rc-{real_chunk:.2f}.net" \
  "$DATASET" "$TASK" pairs
