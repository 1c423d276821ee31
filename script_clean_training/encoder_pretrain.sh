#!/usr/bin/env bash
# Pre-trains one encoder from scratch: on synthetic images, and on real-synthetic pairs too when REAL_CHUNK says so.
# usage: encoder_pretrain.sh [DATASET TASK NET_DEPTH SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# Arguments act as published; left out, they are urbanscape coord FULL 1.0 in_place 0.0 mle 0 (published: REAL_CHUNK 1.0,
# UNC none).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_encoder_arguments 0.0 "$@"

epochs=100
if [ "$DATASET" = urbanscape ]; then epochs=150; fi
if [ "$TASK" = semantics ]; then epochs=30; fi

launch_training --sim_data_chunk "$SIM_CHUNK" --real_data_chunk "$REAL_CHUNK" --real_data_domain "$REAL_DOMAIN" \
  --session clean_training --epochs "${EPOCHS:-$epochs}" --learningrate "${LR:-0.0002}" --batch_size "${BATCH_SIZE:-12}"
