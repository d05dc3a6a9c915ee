"""Indices of the uint32 fields in kernels/contract/launch.h, by the same names."""

import enum

FIELDS_PER_WORD = 16
CONTRACT_VERSION = 1
MODEL_MAGIC = 0x4D584C46
LAUNCH_MAGIC = 0x4C584C46
RESULT_MAGIC = 0x52584C46
TOP_LOGITS = 64
NO_ID = 0xFFFFFFFF


class ModelField(enum.IntEnum):
    magic = 0
    version = 1
    layers = 2
    hidden = 3
    heads = 4
    kv_heads = 5
    head_dim = 6
    ffn = 7
    vocab = 8
    context = 9
    rms_eps = 10
    inv_sqrt_head_dim = 11
    hadamard_block = 12
    hadamard_scale = 13
    probability_bits = 14
    weight_streams = 15
    rope = 16
    layer_table = 17
    final_norm = 18
    lm_head = 19
    lm_head_precision = 20
    words = 21
    fields = 32


class LayerField(enum.IntEnum):
    qkv = 0
    o = 1
    gate_up = 2
    down = 3
    qkv_precision = 4
    o_precision = 5
    gate_up_precision = 6
    down_precision = 7
    attention_norm = 8
    ffn_norm = 9
    q_norm = 10
    k_norm = 11
    fields = 16


class LaunchField(enum.IntEnum):
    magic = 0
    version = 1
    id = 2
    layer_begin = 3
    layer_end = 4
    rows = 5
    sequences = 6
    row_table = 7
    page_tables = 8
    page_table_stride = 9
    inputs = 10
    kv_streams = 11
    kv_pages = 12
    logits = 13
    logits_slots = 14
    work = 15
    result_words = 16
    fields = 32


class RowField(enum.IntEnum):
    sequence = 0
    position = 1
    flags = 2
    target = 3
    residual = 4
    final_norm = 5
    row_result = 6
    logits_slot = 7
    fields = 16


class RowFlag(enum.IntFlag):
    residual = 1
    final_norm = 2
    target_logprob = 4
    row_result = 8
    needs_logits = 12


class CompletionField(enum.IntEnum):
    magic = 0
    version = 1
    id = 2
    status = 3
    rows = 4
    fields = 16


class LaunchStatus(enum.IntEnum):
    ok = 0
    bad_magic = 1
    bad_version = 2
    beyond_maxima = 3
    bad_layers = 4
    bad_row = 5
    bad_page = 6
    bad_offset = 7


class ResultField(enum.IntEnum):
    argmax = 0
    max = 1
    log_sum_exp = 2
    target_logprob = 3
    fields = 16


ROW_RESULT_WORDS = 1 + 2 * (TOP_LOGITS // FIELDS_PER_WORD)
