"""What lies beside the weights of a saved model, so that other libraries and other users can open the folder."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import PreTrainedModel

from idml_hf.files import replacing
from idml_hf.image_processing_idml import IDMLImageProcessor

from .sentence_transformers_config import sentence_transformers_files
from .trained_on import TRAINED_ON_FILE, TrainedOn

PROCESSOR_FILE = "preprocessor_config.json"


def complete_saved_folder(model: PreTrainedModel, folder: str | Path) -> None:
    """Add to a folder that `save_pretrained` has written what makes it whole.

    A model that embeds images gets the files of sentence-transformers, which else would average the feature map
    instead of taking the embedding. A folder without an image processor gets the model's. A model of vectors has no
    use for these. A folder that does not say what the model was trained on gets that from where the model came from.
    The weights get the mode of the other files, which is what the umask says.

    Args:
        model: A model of this package.
        folder: Where it was saved.
    """
    folder = Path(folder)
    mode = (folder / "config.json").stat().st_mode
    for weights in folder.glob("model*.safetensors"):
        weights.chmod(mode)
    if model.config.takes_vectors:
        return
    if getattr(model.base_model, "semantic_head", None) is not None:
        for name, content in sentence_transformers_files().items():
            with replacing(folder / name) as part:
                part.write_bytes(content)
    if not (folder / PROCESSOR_FILE).is_file():
        _write_processor(model, folder)
    if not (folder / TRAINED_ON_FILE).is_file() and (known := TrainedOn.read(model.name_or_path, ask_hub=False)):
        known.write(folder)


def _write_processor(model: PreTrainedModel, folder: Path) -> None:
    source = model.name_or_path
    if source and not os.path.isdir(source):
        # from the Hub: what came from there, without asking it again; or from a folder that is gone
        try:
            cached = try_to_load_from_cache(source, PROCESSOR_FILE)
        except HFValidationError:
            return
        if not isinstance(cached, str):
            return
        source = os.path.dirname(cached)
    if source and os.path.isfile(os.path.join(source, PROCESSOR_FILE)):
        processor = IDMLImageProcessor.from_pretrained(source)
    else:
        processor = IDMLImageProcessor.from_backbone(model.config.backbone, image_size=model.config.image_size)
    processor.save_pretrained(folder)


__all__ = ["complete_saved_folder"]
