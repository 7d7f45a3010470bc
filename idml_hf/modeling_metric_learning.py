"""An IDML model together with the loss it is trained by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .configuration_idml import IDMLConfig
from .losses import build_loss
from .modeling_idml import IDMLModel, IDMLModelOutput, IDMLPreTrainedModel


@dataclass
class IDMLMetricLearningOutput(IDMLModelOutput):
    """Output of [`IDMLForMetricLearning`]: that of [`IDMLModel`], after the loss.

    Args:
        loss: Scalar, when labels were given. In evaluation it is NaN: the classes then are not those that the loss
            knows, and the batches not those it is made for.
    """

    loss: Tensor | None = None
    semantic_embeds: Tensor | None = None
    uncertainty_embeds: Tensor | None = None
    uncertainty: Tensor | None = None
    pooler_output: Tensor | None = None
    semantic_norm: Tensor | None = None
    last_hidden_state: Tensor | None = None


class IDMLForMetricLearning(IDMLPreTrainedModel):
    """[`IDMLModel`] and a loss of [`idml_hf.losses`], whose proxies are parameters of this model.

    So the proxies are optimised, clipped, saved and resumed with the rest, by [`IDMLTrainer`] or by the stock
    `transformers.Trainer`. `model.idml` is the model to use and to share.

    Raises:
        ValueError: for an unknown loss, form or hyper-parameter, or if `num_train_classes` is missing.

    Example:
        >>> import torch
        >>> from idml_hf import IDMLForMetricLearning
        >>> model = IDMLForMetricLearning.from_backbone("resnet18", pretrained=False, num_train_classes=10).train()
        >>> bool(model(torch.randn(4, 3, 64, 64), labels=torch.tensor([0, 0, 1, 1])).loss > 0)
        True
    """

    def __init__(self, config: IDMLConfig) -> None:
        super().__init__(config)
        if not config.num_train_classes:
            raise ValueError("IDMLForMetricLearning needs num_train_classes, the number of training classes")
        self.idml = IDMLModel(config)
        self.loss = build_loss(
            config.loss,
            num_classes=config.num_train_classes,
            embedding_dim=config.embedding_dim,
            form=config.form,
            tau=config.tau,
            **(config.loss_kwargs or {}),
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        if module is self.loss:
            if getattr(self, "_loading", False) and all(
                getattr(t, "_is_hf_initialized", False) for t in (*module.parameters(), *module.buffers())
            ):
                return
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        mixed_pixel_values: Tensor | None = None,
        mixed_labels: Tensor | None = None,
        mix_ratio: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> IDMLMetricLearningOutput | tuple[Tensor, ...]:
        """Embed images and, while training, compute the loss.

        With a mixed batch the loss is that of the paper's released code,
        `loss(x, y) + lam * loss(mixed, y) + (1 - lam) * loss(mixed, y2)`.

        Args:
            pixel_values: `(B, 3, H, W)`, normalised.
            labels: `(B,)` training classes.
            mixed_pixel_values: `(B, 3, H, W)`, `lam * x + (1 - lam) * x2`.
            mixed_labels: `(B,)`, the classes y2 of x2.
            mix_ratio: Scalar lam in [0, 1].
            return_dict: `False` returns a plain tuple.
        """
        batch = len(pixel_values)
        if mixed_pixel_values is not None:
            # one pass for both: half the kernel launches, and one mean norm for the uncertainty budget
            pixel_values = torch.cat([pixel_values, mixed_pixel_values])
        out = self.idml(pixel_values)
        loss = None if labels is None else pixel_values.new_full((), float("nan"))
        if labels is not None and self.training:
            semantic, uncertainty = out.semantic_embeds, out.uncertainty_embeds
            loss = self.loss(semantic[:batch], uncertainty[:batch], labels)
            if mixed_pixel_values is not None and mix_ratio is not None:
                mixed = semantic[batch:], uncertainty[batch:]
                first = self.loss(*mixed, labels, remember=False)
                second = self.loss(*mixed, mixed_labels, remember=False)
                loss = loss + mix_ratio * first + (1 - mix_ratio) * second
        fields = {k: v if k == "last_hidden_state" else v[:batch] for k, v in out.items()}
        result = IDMLMetricLearningOutput(loss=loss, **fields)
        return result.to_tuple() if return_dict is False else result


__all__ = ["IDMLForMetricLearning", "IDMLMetricLearningOutput"]
