"""Our names of tensors, and those of Grounding DINO in the format of the Hugging Face hub.

The names are those on disk, which are not the ones that `transformers` has in memory.
"""

from __future__ import annotations

import re

BERT = "model.text_backbone."


def hub_names(name: str, first_map: int) -> tuple[str, ...]:
    """The names on disk of a detector's tensor: one; three where it is query, key and value in one; or none.

    Args:
        name: in the detector's state dict.
        first_map: the first of the backbone's `out_indices`.
    """
    # A downsampling opens a stage here and closes the one before there; norms are counted by map here, by stage there.
    name = re.sub(r"^(backbone\.model\.layers_)(\d+)(\.downsample)", lambda m: f"{m[1]}{int(m[2]) - 1}{m[3]}", name)
    name = re.sub(r"^(backbone\.norms\.)(\d+)", lambda m: f"{m[1]}{int(m[2]) + first_map + 1}", name)
    for pattern, prefix, leaves in _PARTS:
        match = re.match(pattern, name)
        if match is None:
            continue
        rest = name[match.end() :]
        stem, _, kind = rest.rpartition(".")
        for leaf, suffix in ((rest, ""), (stem, f".{kind}")):
            if leaf in leaves:
                return tuple(f"{match.expand(prefix)}{theirs}{suffix}" for theirs in leaves[leaf].split())
    return ()


_SWIN = "model.backbone.conv_encoder.model."
_DEFORMABLE = {"offsets": "sampling_offsets", "weights": "attention_weights", "value": "value_proj"} | {
    "output": "output_proj"
}
_ATTENTION = {"query": "query", "key": "key", "value": "value", "output": "out_proj"}
_FEED_FORWARD = {"feed_forward.net.0": "fc1", "feed_forward.net.3": "fc2"}
_MLP = {"mlp.0": "layers.0", "mlp.2": "layers.1", "mlp.4": "layers.2"}


def _within(ours: str, theirs: str, leaves: dict[str, str]) -> dict[str, str]:
    return {f"{ours}.{key}": f"{theirs}.{value}" for key, value in leaves.items()}


# Prefix of our names as a regular expression, prefix of theirs, and what follows the two; several names are apart.
_PARTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        r"backbone\.model\.patch_embed\.",
        f"{_SWIN}embeddings.",
        {"proj": "patch_embeddings.projection", "norm": "norm"},
    ),
    (
        r"backbone\.model\.layers_(\d+)\.blocks\.(\d+)\.",
        rf"{_SWIN}encoder.layers.\1.blocks.\2.",
        {
            "norm1": "layernorm_before",
            "attn.qkv": "attention.self.query attention.self.key attention.self.value",
            "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
            "attn.proj": "attention.output.dense",
            "norm2": "layernorm_after",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
        },
    ),
    (
        r"backbone\.model\.layers_(\d+)\.downsample\.",
        rf"{_SWIN}encoder.layers.\1.downsample.",
        {"norm": "norm", "reduction": "reduction"},
    ),
    (r"backbone\.norms\.", f"{_SWIN}hidden_states_norms.", {str(stage): f"stage{stage}" for stage in range(1, 5)}),
    (r"neck\.projections\.(\d+)\.", r"model.input_proj_vision.\1.", {"0": "0", "1": "1"}),
    (r"neck\.", "model.", {"level_embedding": "level_embed"}),
    (r"text_encoder\.", "model.", {"projection": "text_projection"}),
    (
        r"text_encoder\.tower\.",
        f"{BERT}embeddings.",
        {
            "words": "word_embeddings",
            "positions": "position_embeddings",
            "segments": "token_type_embeddings",
            "norm": "LayerNorm",
        },
    ),
    (
        r"text_encoder\.tower\.encoder\.layers\.(\d+)\.",
        rf"{BERT}encoder.layer.\1.",
        {
            "self_attn.in_proj_weight": "attention.self.query.weight attention.self.key.weight "
            "attention.self.value.weight",
            "self_attn.in_proj_bias": "attention.self.query.bias attention.self.key.bias attention.self.value.bias",
            "self_attn.out_proj": "attention.output.dense",
            "norm1": "attention.output.LayerNorm",
            "linear1": "intermediate.dense",
            "linear2": "output.dense",
            "norm2": "output.LayerNorm",
        },
    ),
    (
        r"encoder\.layers\.(\d+)\.",
        r"model.encoder.layers.\1.deformable_layer.",
        _within("attention", "self_attn", _DEFORMABLE)
        | _FEED_FORWARD
        | {"norm": "self_attn_layer_norm", "feed_forward.norm": "final_layer_norm"},
    ),
    (
        r"fusions\.(\d+)\.attention\.",
        r"model.encoder.layers.\1.fusion_layer.",
        {
            "image_norm": "layer_norm_vision",
            "prompt_norm": "layer_norm_text",
            "image_query": "attn.vision_proj",
            "prompt_key": "attn.text_proj",
            "image_value": "attn.values_vision_proj",
            "prompt_value": "attn.values_text_proj",
            "image_output": "attn.out_vision_proj",
            "prompt_output": "attn.out_text_proj",
            "image_scale": "vision_param",
            "prompt_scale": "text_param",
        },
    ),
    (
        r"fusions\.(\d+)\.",
        r"model.encoder.layers.\1.text_enhancer_layer.",
        _within("self_attention", "self_attn", _ATTENTION)
        | _FEED_FORWARD
        | {"norm": "layer_norm_before", "feed_forward.norm": "layer_norm_after"},
    ),
    (
        r"selection\.",
        "model.",
        _within("box_head", "encoder_output_bbox_embed", _MLP)
        | {
            "project": "enc_output",
            "norm": "enc_output_norm",
            "content": "query_position_embeddings.weight",
            "head": "encoder_output_class_embed",
        },
    ),
    (
        r"decoder\.layers\.(\d+)\.",
        r"model.decoder.layers.\1.",
        _within("self_attention", "self_attn", _ATTENTION)
        | _within("context_attention", "encoder_attn_text", _ATTENTION)
        | _within("cross_attention", "encoder_attn", _DEFORMABLE)
        | _FEED_FORWARD
        | {
            "self_norm": "self_attn_layer_norm",
            "context_norm": "encoder_attn_text_layer_norm",
            "cross_norm": "encoder_attn_layer_norm",
            "feed_forward.norm": "final_layer_norm",
        },
    ),
    (r"decoder\.box_heads\.(\d+)\.", r"bbox_embed.\1.", _MLP),
    (
        r"decoder\.",
        "model.decoder.",
        {
            "position.0": "reference_points_head.layers.0",
            "position.2": "reference_points_head.layers.1",
            "norm": "layer_norm",
        },
    ),
    (r"heads\.(\d+)\.", r"class_embed.\1.", {"bias": "bias"}),
)
