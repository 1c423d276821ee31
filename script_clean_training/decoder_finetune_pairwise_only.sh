#!/usr/bin/env bash
# Fuses encoders that were trained on real-synthetic pairs alone (ablation).
# usage: decoder_finetune_pairwise_only.sh [DATASET TASK NET_DEPTH PT_SIM_CHUNK PT_REAL_DOMAIN PT_REAL_CHUNK SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# Arguments left out are urbanscape coord FULL 0.0 in_place 1.0 0.0 in_place 1.0 mle 0.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
DEFAULT_SIM_CHUNK=0.0 parse_decoder_arguments "$@"
train_decoder pairwise-only pairwise-only- coord depth normal
