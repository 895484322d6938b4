"""Names of tensors and parameters of TensorRT-LLM's Triton model.

They are from a copy of NVIDIA/TensorRT-LLM at commit 0c8de69a1ca6213eebb20a51873890ff128666c2. The
commit has no release tag, so it was not verified that 1.2.1 has the same names. Sources:
``triton_backend/all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt`` (tensors, parameters)
and ``triton_backend/inflight_batcher_llm/src/model_instance_state.cc`` (further parameters that the
backend reads). The backend looks up tensors and parameters by name. It uses a default for a name
that it does not find, so that nothing reports a misspelt name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adprior_runtime.contract import LLM_ENGINE

BACKEND: Final = "tensorrtllm"
"""The name of the backend in Triton."""

MODEL_TYPE: Final = "gpt_model_type"
ENGINE_PATH: Final = "gpt_model_path"
MAX_BEAM_WIDTH: Final = "max_beam_width"
KV_CACHE_REUSE: Final = "enable_kv_cache_reuse"
KV_CACHE_SHARE: Final = "kv_cache_free_gpu_mem_fraction"
"""Parameters that a build sets or a check reads; the last is the share of free GPU memory for the
KV cache."""

SERVED_PARAMETERS: Final = {
    MODEL_TYPE: "inflight_fused_batching",
    # The container's mount point, and a default beam width: a build with an engine sets its own.
    # Without a width the backend would take 1.
    ENGINE_PATH: f"/models/{LLM_ENGINE}/1",
    MAX_BEAM_WIDTH: "32",
    "decoding_mode": "beam_search",
    "batch_scheduler_policy": "guaranteed_no_evict",
    KV_CACHE_REUSE: "true",
    "exclude_input_in_output": "true",
    "normalize_log_probs": "false",  # true would divide a sequence's log-probability by its length
    # The backend reads these three without a default and fails to load where one is absent.
    "guided_decoding_backend": "",
    "tokenizer_dir": "",
    "xgrammar_tokenizer_info_path": "",
}
"""The ``parameters`` block of ``llm_engine/config.pbtxt``."""


@dataclass(frozen=True, slots=True)
class OfficialTensor:
    """A tensor of TensorRT-LLM's own configuration.

    Attributes:
        dtype: Triton's name without ``TYPE_``; ``*`` where that configuration leaves it open.
        dims: Shape without the batch dimension.
        scalar: Whether dims [1] are reshaped to [].
    """

    dtype: str
    dims: tuple[int, ...]
    scalar: bool = False


def _tensors(listed: str) -> dict[str, OfficialTensor]:
    """Parse lines with a type, the dims or ``scalar``, and the names of such tensors."""
    tensors: dict[str, OfficialTensor] = {}
    for line in listed.strip().splitlines():
        dtype, dims, *names = line.split()
        shape = (1,) if dims == "scalar" else tuple(int(part) for part in dims.split(","))
        tensors |= {name: OfficialTensor(dtype, shape, dims == "scalar") for name in names}
    return tensors


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


INPUTS: Final = _tensors("""
INT32 -1 input_ids draft_input_ids decoder_input_ids
INT32 scalar input_lengths request_output_len encoder_output_lengths num_return_sequences
INT32 scalar decoder_input_lengths end_id pad_id beam_width runtime_top_k runtime_top_p_reset_ids
INT32 scalar min_tokens prompt_vocab_size
FP32 scalar draft_acceptance_threshold temperature runtime_top_p runtime_top_p_min
FP32 scalar runtime_top_p_decay len_penalty repetition_penalty beam_search_diversity_rate
FP32 scalar presence_penalty frequency_penalty
UINT64 scalar seed lora_task_id
BOOL scalar early_stopping return_log_probs return_context_logits return_generation_logits
BOOL scalar return_perf_metrics return_num_input_tokens return_num_output_tokens
BOOL scalar exclude_input_in_output stop streaming
INT32 2,-1 stop_words_list bad_words_list
FP32 -1 embedding_bias mrope_rotary_cos_sin
* -1,-1 encoder_input_features draft_logits prompt_embedding_table
UINT64 -1 prompt_table_extra_ids
BOOL -1,-1 cross_attention_mask
INT64 1 mrope_position_deltas
FP16 -1,-1 lora_weights
INT32 -1,3 lora_config
UINT8 -1 context_phase_params
BOOL 1 skip_cross_attn_blocks
INT32 -1 retention_token_range_starts retention_token_range_ends retention_token_range_priorities
INT32 -1 retention_token_range_durations_ms
INT32 1 retention_decode_priority retention_decode_duration_ms lookahead_window_size
INT32 1 lookahead_ngram_size lookahead_verification_set_size
STRING 1 guided_decoding_guide_type guided_decoding_guide
""")

OUTPUTS: Final = _tensors("""
INT32 -1,-1 output_ids
INT32 -1 sequence_length
FP32 -1 cum_log_probs
FP32 -1,-1 output_log_probs
* -1,-1 context_logits
* -1,-1,-1 generation_logits
INT32 1 batch_index sequence_index kv_cache_alloc_new_blocks kv_cache_reused_blocks
INT32 1 kv_cache_alloc_total_blocks total_accepted_draft_tokens total_draft_tokens
INT32 1 num_input_tokens num_output_tokens
UINT8 -1 context_phase_params
INT64 1 arrival_time_ns first_scheduled_time_ns first_token_time_ns last_token_time_ns
FP32 1 acceptance_rate
""")

PARAMETERS: Final = _words("""
max_beam_width FORCE_CPU_ONLY_INPUT_TENSORS gpt_model_type gpt_model_path encoder_model_path
max_tokens_in_paged_kv_cache max_attention_window_size sink_token_length batch_scheduler_policy
kv_cache_free_gpu_mem_fraction cross_kv_cache_fraction kv_cache_host_memory_bytes
kv_cache_onboard_blocks enable_trt_overlap exclude_input_in_output cancellation_check_period_ms
stats_check_period_ms iter_stats_max_iterations request_stats_max_iterations
enable_kv_cache_reuse normalize_log_probs enable_chunked_context gpu_device_ids participant_ids
num_nodes lora_cache_optimal_adapter_size lora_cache_max_adapter_size
lora_cache_gpu_memory_fraction lora_cache_host_memory_bytes lora_prefetch_dir decoding_mode
executor_worker_path lookahead_window_size lookahead_ngram_size lookahead_verification_set_size
medusa_choices eagle_choices gpu_weights_percent enable_context_fmha_fp32_acc multi_block_mode
cuda_graph_mode cuda_graph_cache_size speculative_decoding_fast_logits tokenizer_dir
guided_decoding_backend xgrammar_tokenizer_info_path recv_poll_period_ms
""")
