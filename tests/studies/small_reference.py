"""A Grounding DINO of a few thousand parameters, and small images, for the benchmarks' tests."""

from __future__ import annotations

from trex2_lightning.studies.timing import Setting

SWIN = {
    "model_type": "swin",
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 4, 8],
    "out_features": ["stage2", "stage3", "stage4"],
}
BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 4000,
}
LAYERS = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 20}
HEADS = {"d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
PARTS = {"backbone_config": SWIN, "text_config": BERT, "max_text_len": 64}
SMALL = Setting(96, 128, few=8, many=40, repeats=1, reference={**PARTS, **LAYERS, **HEADS})
