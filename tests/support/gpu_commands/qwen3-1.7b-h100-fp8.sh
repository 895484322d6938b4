# qwen3-1.7b on h100-fp8
# memory                GiB
# weights              2.47
# activations          0.81  estimate
# logits and beams     1.77  estimate
# runtime              1.00  allowance
# KV cache needed     10.39  32 users x 332.5 MiB (31 blocks shared, 2 a beam)
# KV cache available  66.19  0.9 of what is left
# GPU                 79.60  as nvidia-smi reports it
# H100 has room for 181 users at once
# fp8 with Qwen3ForCausalLM is experimental: TensorRT-LLM #9298 is open

# quantise
python3 /app/examples/quantization/quantize.py \
  --model_dir /build/checkpoint \
  --output_dir /build/converted \
  --dtype bfloat16 \
  --qformat fp8 \
  --calib_dataset /build/calibration \
  --calib_size 512 \
  --calib_max_seq_length 1032 \
  --tokenizer_max_seq_length 1032 \
  --batch_size 1 \
  --tp_size 1 \
  --device cuda

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
  --gemm_plugin disable \
  --multiple_profiles disable \
  --logits_dtype float32 \
  --output_timing_cache /build/timing.cache \
  --workers 1 \
  --log_level info
