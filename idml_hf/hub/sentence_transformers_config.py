"""The files by which sentence-transformers opens an IDML model as an image encoder."""

from __future__ import annotations

import json

_FILES = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {"image": {"method": "forward", "method_output_name": "pooler_output"}},
        "module_output_name": "sentence_embedding",
    },
    "config_sentence_transformers.json": {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
}


def sentence_transformers_files() -> dict[str, bytes]:
    """Name -> content of what lies beside an [`IDMLModel`] so that `SentenceTransformer(folder).encode(images)` works.

    The encoding is the semantic embedding. In Python, `import idml_hf` first, or pass `trust_remote_code=True` if the
    repository carries the code.
    """
    return {name: json.dumps(content, indent=2).encode() + b"\n" for name, content in _FILES.items()}


__all__ = ["sentence_transformers_files"]
