"""The part of the trainer that evaluates: all images, whatever the options of training are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from idml_hf.metric_names import is_number

logger = logging.get_logger(__name__)


class EvaluatingTrainer(Trainer):
    """Measures what the model says of a whole data set at once.

    No option of training leaves out images or splits them: `dataloader_drop_last`, `batch_eval_metrics` and
    `eval_do_concat_batches` do nothing to an evaluation. A metric that is undefined once, as an AUROC is where all
    queries are right, is no new best and goes to no scheduler; the training goes on.
    """

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The loader of all images to evaluate."""
        with self._whole_evaluation():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """The loader of all images to predict."""
        with self._whole_evaluation():
            return super().get_test_dataloader(test_dataset)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Run the model on all images, then measure the whole.

        Raises:
            RuntimeError: if the loader left out images.
        """
        with self._whole_evaluation():
            output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        labels, images = np.asarray(output.label_ids), dataloader.dataset
        if len(labels) != len(images):  # type: ignore[arg-type]
            raise RuntimeError(f"The evaluation saw {len(labels)} of {len(images)} images")  # type: ignore[arg-type]
        metrics = self._measure(output.predictions, labels, images)
        output.metrics.update({f"{metric_key_prefix}_{k}": v for k, v in metrics.items()})
        return output

    def _predictions(self, out: Any) -> tuple[Tensor, ...]:
        """What is kept of the model's output, to measure the whole."""
        raise NotImplementedError

    def _measure(self, predictions: tuple[np.ndarray, ...], labels: np.ndarray, images: Any) -> dict[str, Any]:
        """The metrics of the evaluation data."""
        raise NotImplementedError

    @contextmanager
    def _whole_evaluation(self) -> Iterator[None]:
        whole = {"dataloader_drop_last": False, "batch_eval_metrics": False, "eval_do_concat_batches": True}
        before = {name: getattr(self.args, name) for name in whole}
        for name, value in whole.items():
            setattr(self.args, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self.args, name, value)

    def _determine_best_metric(self, metrics: dict[str, Any], trial: Any) -> bool:
        name = self._best_metric
        if name in metrics and not is_number(metrics[name]):
            logger.warning(f"{name} is undefined at step {self.state.global_step}, so it is no new best")
            return False
        return super()._determine_best_metric(metrics, trial)

    def _evaluate(self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False) -> Any:
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)
        if _waits_for_a_metric(self.lr_scheduler) and not skip_scheduler:
            if self._best_metric not in metrics:
                raise KeyError(f"metric_for_best_model is {self._best_metric!r}, which is none of {list(metrics)}")
            if is_number(metrics[self._best_metric]):
                self.lr_scheduler.step(metrics[self._best_metric])
        return metrics

    @property
    def _best_metric(self) -> str:
        """The key of the metric that selects the best model, as `evaluate` returns it."""
        return f"eval_{(self.args.metric_for_best_model or 'loss').removeprefix('eval_')}"


def _waits_for_a_metric(scheduler: Any) -> bool:
    """Whether a scheduler steps when there was an evaluation."""
    return isinstance(scheduler, ReduceLROnPlateau) or type(scheduler).__name__ == "GreedyLR"


__all__ = ["EvaluatingTrainer"]
