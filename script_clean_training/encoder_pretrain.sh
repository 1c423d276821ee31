#!/usr/bin/env bash
# Pre-trains one encoder on synthetic images, from scratch.
# usage: encoder_pretrain.sh [DATASET TASK NET_DEPTH SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_encoder_arguments "$@"

epochs=100
if [ "$DATASET" = urbanscape ]; then epochs=150; fi
if [ "$TASK" = semantics ]; then epochs=30; fi

launch_training --sim_data_chunk "$SIM_CHUNK" --real_data_chunk 0 --session clean_training \
  --epochs "${EPOCHS:-$epochs}" --learningrate "${LR:-0.0002}" --batch_size "${BATCH_SIZE:-12}"
