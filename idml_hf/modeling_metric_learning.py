"""An IDML model together with the loss it is trained by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idml_hf.losses.uncertainty_ranking import UncertaintyRanking

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
    hidden_states: tuple[Tensor, ...] | None = None


class IDMLForMetricLearning(IDMLPreTrainedModel):
    """[`IDMLModel`] and a loss of [`idml_hf.losses`], whose proxies are parameters of this model.

    To the loss comes, with the weight `uncertainty_ranking` of the configuration, the term by which the uncertainty
    learns which images are hard. Under `uncertainty_detached` its gradient ends at the uncertainty head.

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

    # a memory of images starts empty
    _keys_to_ignore_on_load_missing = [r"^ranking\."]

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
        self.ranking = UncertaintyRanking(config.reference_size) if config.ranks_uncertainty else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        if module is self.loss:
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        mixed_pixel_values: Tensor | None = None,
        mixed_classes: Tensor | None = None,
        mix_ratio: Tensor | None = None,
        groups: Tensor | None = None,
        degraded_features: Tensor | None = None,
        degraded_pixel_values: Tensor | None = None,
        output_hidden_states: bool | None = None,
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
            mixed_classes: `(B,)`, the classes y2 of x2.
            mix_ratio: Scalar lam in [0, 1].
            groups: `(B,)`, integers: an image of the same class and group is no match, as in evaluation.
            degraded_features: `(2 M, F)`, what `read_degraded` returns for M images degraded, then for the same images
                degraded more.
            degraded_pixel_values: `(2 M, 3, H, W)`, these images, if they have not been read yet.
            output_hidden_states: Whether to return the trunk's feature maps; `None` means as the configuration says.
            return_dict: `False` returns a plain tuple.
        """
        if degraded_pixel_values is not None and degraded_features is None and self.training:
            degraded_features = self.read_degraded(degraded_pixel_values)
        batch = pixel_values.shape[0]
        if mixed_pixel_values is not None:
            # one pass for both: half the kernel launches, and one mean norm for the uncertainty budget
            pixel_values = torch.cat([pixel_values, mixed_pixel_values])
        out = self.idml(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        loss = None if labels is None else pixel_values.new_full((), float("nan"))
        if labels is not None and self.training:
            semantic, uncertainty = out.semantic_embeds, out.uncertainty_embeds
            if self.ranking is not None:
                # near negatives would teach it the opposite: they push the uncertainty down where mistakes happen
                uncertainty = uncertainty.detach()
            loss = self.loss(semantic[:batch], uncertainty[:batch], labels)
            if mixed_pixel_values is not None and mix_ratio is not None:
                mixed = semantic[batch:], uncertainty[batch:]
                first = self.loss(*mixed, labels, remember=False)
                second = self.loss(*mixed, mixed_classes, remember=False)
                loss = loss + mix_ratio * first + (1 - mix_ratio) * second
            if self.ranking is not None:
                term = self._ranking_term(out, labels, groups, degraded_features)
                loss = loss + self.config.uncertainty_ranking * term
        fields = dict(out.items())
        if mixed_pixel_values is not None:
            maps = ("last_hidden_state", "hidden_states")
            fields = {k: v if k in maps else v[:batch] for k, v in fields.items()}
        result = IDMLMetricLearningOutput(loss=loss, **fields)
        return result if self._wants_dict(return_dict) else result.to_tuple()

    @torch.compiler.disable
    @torch.no_grad()
    def read_degraded(self, pixel_values: Tensor) -> Tensor:
        """What the uncertainty head reads of degraded images: the trunk as in evaluation, and without gradient.

        Their statistics are not those of the data. A trainer calls this before the step's forward pass, which then
        runs in one mode from its beginning to its end; each module is left in the mode that it was in.

        Args:
            pixel_values: `(N, 3, H, W)`, normalised.

        Returns:
            `(N, F)`.
        """
        modes = [(module, module.training) for module in self.idml.backbone.modules()]
        self.idml.backbone.eval()
        try:
            return self.idml.features_to_read(pixel_values).read
        finally:
            for module, mode in modes:
                module.training = mode

    def _ranking_term(
        self, out: IDMLModelOutput, labels: Tensor, groups: Tensor | None, degraded: Tensor | None
    ) -> Tensor:
        assert self.ranking is not None and self.idml.reference is not None
        assert out.semantic_embeds is not None and out.uncertainty is not None
        batch = len(labels)
        views = None
        if degraded is not None:
            views = torch.linalg.vector_norm(self.idml.uncertainty_head.activate(degraded), dim=-1)
        return self.ranking(
            out.uncertainty[:batch], out.semantic_embeds[:batch], labels, self.idml.reference, groups, views
        )


__all__ = ["IDMLForMetricLearning", "IDMLMetricLearningOutput"]
