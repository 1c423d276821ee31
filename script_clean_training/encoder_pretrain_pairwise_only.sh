#!/usr/bin/env bash
# Trains one encoder from scratch on real-synthetic pairs alone (ablation).
# usage: encoder_pretrain_pairwise_only.sh [DATASET TASK NET_DEPTH SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# Arguments left out are urbanscape coord FULL 0.0 in_place 1.0 mle 0.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
DEFAULT_SIM_CHUNK=0.0 parse_encoder_arguments 1.0 "$@"

epochs=1000
if [ "$TASK" = semantics ]; then epochs=30; fi

launch_training --sim_data_chunk "$SIM_CHUNK" --real_data_chunk "$REAL_CHUNK" --real_data_domain "$REAL_DOMAIN" \
  --session clean_training --epochs "${EPOCHS:-$epochs}" --learningrate "${LR:-0.0001}" --no_lr_scheduling \
  --batch_size "${BATCH_SIZE:-12}"
