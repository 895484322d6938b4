# llama-3-8b on h100
# memory                GiB
# weights             14.96
# activations          1.81  estimate
# logits and beams     1.50  estimate
# runtime              1.00  allowance
# KV cache needed     11.88  32 users x 380.0 MiB (31 blocks shared, 2 a beam)
# KV cache available  54.30  0.9 of what is left
# GPU                 79.60  as nvidia-smi reports it
# H100 has room for 134 users at once

# convert
python3 /app/examples/models/core/llama/convert_checkpoint.py \
  --model_dir /build/checkpoint \
  --output_dir /build/converted \
  --dtype bfloat16 \
  --tp_size 1 \
  --workers 1 \
  --load_model_on_cpu

# compile
trtllm-build \
  --checkpoint_dir /build/converted \
  --output_dir /repository/llm_engine/1 \
  --max_batch_size 32 \
  --max_input_len 1024 \
  --max_seq_len 1032 \
  --max_beam_width 32 \
  --max_num_tokens 8192 \
  --kv_cache_type paged \
  --tokens_per_block 32 \
  --remove_input_padding enable \
  --context_fmha enable \
  --use_paged_context_fmha enable \
  --use_fp8_context_fmha disable \
  --gpt_attention_plugin bfloat16 \
  --gemm_plugin bfloat16 \
  --multiple_profiles disable \
  --logits_dtype float32 \
  --output_timing_cache /build/timing.cache \
  --workers 1 \
  --log_level info
