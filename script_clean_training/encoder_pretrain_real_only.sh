#!/usr/bin/env bash
# Trains one encoder from scratch on real photos alone (ablation).
# usage: encoder_pretrain_real_only.sh [DATASET TASK NET_DEPTH SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# Arguments left out are urbanscape coord FULL 0.0 in_place 1.0 mle 0.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
DEFAULT_SIM_CHUNK=0.0 parse_encoder_arguments 1.0 "$@"

epochs=2000
if [ "$TASK" = semantics ]; then epochs=60; fi

launch_training --sim_data_chunk "$SIM_CHUNK" --real_data_chunk "$REAL_CHUNK" --real_data_domain "$REAL_DOMAIN" --real_only \
  --session clean_training --epochs "${EPOCHS:-$epochs}" --learningrate "${LR:-0.0001}" --no_lr_scheduling \
  --batch_size "${BATCH_SIZE:-12}"
