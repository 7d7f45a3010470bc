"""The Hugging Face Trainer, with a run that depends on its seed alone: what both tasks are trained by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from datasets import DatasetDict
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.trainer_utils import HubStrategy, get_last_checkpoint

from idml_hf.data import DeviceAugmentation, EvalImages, ImageSet, Normalizer, as_image_set, cropped_images
from idml_hf.data.as_image_set import is_table
from idml_hf.files import clear_writing_errors

from .arguments import IDMLTrainingArguments
from .callbacks import EpochOfSampler, FrozenTrunk, LogBeside, ProgressBeside, UncertaintyMonitor, ValueClipping
from .evaluating_trainer import EvaluatingTrainer
from .optim import parameter_groups, step_schedule
from .sampler import RandomBatchSampler
from .settings import DataSettings


class DeterministicTrainer(EvaluatingTrainer):
    """Trains a model of this package: batches and what is drawn for them depend on their place in the run alone.

    So a run that is interrupted and resumed ends with the same weights, bit for bit.

    Args:
        model: A model of this package that returns a loss and an uncertainty.
        args: Its arguments.
        train_dataset: [`idml_hf.data.TrainImages`], or any map-style data set that gives `pixel_values` and `labels`
            and has an attribute `labels`, the class of each image. It is indexed by [`idml_hf.data.Draw`]. Images that
            come as uint8 are normalised on the device. Or an [`idml_hf.data.ImageSet`] or a `datasets.Dataset` with
            pictures and classes, which is cropped and flipped at random.
        eval_dataset: [`idml_hf.data.EvalImages`], or an [`idml_hf.data.ImageSet`] or a `datasets.Dataset`.
        processing_class: The image processor, saved with each checkpoint.
        augmentation: [`idml_hf.data.DeviceAugmentation`], for a `train_dataset` that leaves its images as they are:
            it crops and flips whole batches where the model is.

    Raises:
        FloatingPointError: when the loss is not finite, before the weights are touched.
    """

    arguments_class: ClassVar[type[IDMLTrainingArguments]] = IDMLTrainingArguments
    main_metric: ClassVar[str]
    """What a search of hyper-parameters maximises unless told otherwise."""

    args: IDMLTrainingArguments
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        model: nn.Module | None = None,
        args: Any = None,
        *,
        augmentation: DeviceAugmentation | None = None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            args = self.arguments_class("trainer_output")
        self.args = args
        self.train_dataset: Any = None
        super().__init__(model=None if model is None else self._laid_out(model), args=args, **kwargs)
        self.augmentation = None if augmentation is None else augmentation.to(args.device)
        if self.train_dataset is not None:
            self.train_dataset = self._training_images(self.train_dataset)
        for stock, beside in ((ProgressCallback, ProgressBeside), (PrinterCallback, LogBeside)):
            if self.pop_callback(stock) is not None:
                self.add_callback(beside())
        self.uncertainty_monitor = UncertaintyMonitor()
        self.add_callback(self.uncertainty_monitor)
        if args.frozen_trunk_epochs:
            self.add_callback(FrozenTrunk(args.frozen_trunk_epochs))
        if args.clip_grad_value:
            self.add_callback(ValueClipping(args.clip_grad_value))
        self._micro_step = (-1, 0)

    def _laid_out(self, model: nn.Module) -> nn.Module:
        return model.to(memory_format=torch.channels_last) if self.args.channels_last else model

    def call_model_init(self, trial: Any = None) -> Any:
        """Build the model by `model_init`."""
        return self._laid_out(super().call_model_init(trial))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; arguments as those of transformers' method of this name."""
        # another training by the same trainer, as in a search of hyper-parameters, draws as the first one did
        self._micro_step = (-1, 0)
        return super().train(*args, **kwargs)

    def hyperparameter_search(
        self,
        hp_space: Any = None,
        compute_objective: Callable[[dict[str, Any]], float] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Search hyper-parameters; arguments as those of transformers' method of this name.

        Without `compute_objective`, the `metric_for_best_model`, or else this trainer's main metric, is maximised, or
        minimised under `greater_is_better=False`.
        """
        if compute_objective is None:
            name = self.args.metric_for_best_model or self.main_metric
            key = name if name.startswith("eval_") else f"eval_{name}"
            smaller = self.args.metric_for_best_model is not None and self.args.greater_is_better is False
            if not args[1:]:
                kwargs.setdefault("direction", "minimize" if smaller else "maximize")

            def compute_objective(metrics: dict[str, Any]) -> float:
                return metrics[key]

        return super().hyperparameter_search(hp_space, compute_objective, *args, **kwargs)

    def _training_images(self, images: Any) -> Any:
        """`images`, made ready for training if they are a table or a set of images."""
        if not is_table(images) and not isinstance(images, ImageSet):
            return images
        if self.processing_class is None:
            raise ValueError("Training on a data set of pictures needs processing_class, the model's image processor")
        return cropped_images(
            as_image_set(images, split="train" if isinstance(images, DatasetDict) else None),
            self.processing_class,
            crop_scale=DataSettings.crop_scale,
            seed=self.args.seed,
        )[0]

    def _evaluation_images(self, images: Any) -> Any:
        if not is_table(images) and not isinstance(images, ImageSet):
            return images
        if self.processing_class is None:
            raise ValueError("Evaluating a data set of pictures needs processing_class, the model's image processor")
        return EvalImages(as_image_set(images), self.processing_class)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The loader of all evaluation images, whatever `dataloader_drop_last` says of training."""
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        elif eval_dataset is None:
            eval_dataset = self.eval_dataset
        with self._all_images():
            return super().get_eval_dataloader(self._evaluation_images(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """The loader of all test images, whatever `dataloader_drop_last` says of training."""
        with self._all_images():
            return super().get_test_dataloader(self._evaluation_images(test_dataset))

    @contextmanager
    def _all_images(self) -> Iterator[None]:
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = drop_last

    def _train_batch_sampler(self) -> RandomBatchSampler:
        return RandomBatchSampler(len(self.train_dataset), self.args.per_device_train_batch_size, self._sampling_seed)

    @property
    def _sampling_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def get_train_dataloader(self) -> DataLoader:
        """The training loader, whose batches depend on (seed, epoch) alone."""
        if self.train_dataset is None:
            raise ValueError("Training needs a train_dataset")
        sampler = self._train_batch_sampler()
        self._replace_callback(EpochOfSampler(sampler))
        workers = self.args.dataloader_num_workers
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers and workers > 0,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader)

    def _replace_callback(self, callback: TrainerCallback) -> None:
        self.remove_callback(type(callback))
        self.add_callback(callback)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the matrices and kernels: scales, shifts and a loss's scalars have no size to shrink."""
        matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
        return [name for name in super().get_decay_parameter_names(model) if name in matrices]

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The optimizer, with a learning rate of their own for parameters named in `learning_rate_multipliers`."""
        if self.optimizer is None:
            model = self.model if model is None else model
            cls, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = parameter_groups(
                model,
                kwargs["lr"],
                self.args.weight_decay,
                self.get_decay_parameter_names(model),
                cast("dict[str, float]", self.args.learning_rate_multipliers or {}),
            )
            self.optimizer = cls(groups, **kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """The step schedule of `lr_step_epochs`, else the one of `lr_scheduler_type`."""
        if self.lr_scheduler is None and self.args.lr_step_epochs:
            steps_per_epoch = max(1, round(num_training_steps / self.args.num_train_epochs))
            self.lr_scheduler = step_schedule(
                optimizer or self.optimizer, self.args.lr_step_epochs, self.args.lr_step_gamma, steps_per_epoch
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The loss of the joined batch of all processes."""
        inputs = dict(inputs)
        seeds = inputs.pop("seeds", None)
        if self.augmentation is not None and seeds is not None:
            inputs["pixel_values"] = self.augmentation(inputs["pixel_values"], seeds)
        inputs["pixel_values"] = self._images(inputs["pixel_values"])
        place = *self._next_batch(), self.args.process_index
        inputs |= self._further_inputs(inputs, place)
        outputs = model(**inputs)
        self.uncertainty_monitor.observe(outputs.uncertainty)
        # Reading the loss waits for the device, but a loss that is not finite must not reach the weights.
        if not torch.isfinite(outputs.loss):
            self._refuse_loss(outputs.loss)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _images(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.dtype == torch.uint8:
            # a quarter of the bytes came from the workers and over the bus
            pixel_values = self._normalizer(pixel_values)
        if self.args.channels_last:
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        return pixel_values

    @cached_property
    def _normalizer(self) -> Normalizer:
        processor = self.processing_class
        if processor is None:
            raise ValueError("Images that come as uint8 need processing_class, whose mean and std normalise them")
        return Normalizer(processor.image_mean, processor.image_std).to(self.args.device)

    def _further_inputs(self, inputs: dict[str, Tensor], place: tuple[int, int, int]) -> dict[str, Tensor]:
        """What is added to the model's inputs, or replaces some of them.

        Args:
            inputs: The model's inputs.
            place: Number of the optimizer step, of the batch within it, and of the process.
        """
        return {}

    def _next_batch(self) -> tuple[int, int]:
        """Number of the optimizer step, and of the batch within it."""
        step, micro = self._micro_step
        self._micro_step = (step, micro + 1) if step == self.state.global_step else (self.state.global_step, 0)
        return self._micro_step

    def _refuse_loss(self, loss: Tensor) -> None:
        saved = get_last_checkpoint(self.args.output_dir) if self.args.output_dir else None
        raise FloatingPointError(
            f"The loss became {loss.item()} at step {self.state.global_step + 1} ({self._describe_loss()}, learning "
            f"rate {self._get_learning_rate():.3g}). The weights were not changed by it; "
            + (f"the last checkpoint is {saved}." if saved else "no checkpoint was saved yet.")
            + " Try a lower learning rate or a smaller clip_grad_value."
        )

    def _describe_loss(self) -> str:
        return f"form {self.model.config.form!r}"

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, tuple[Tensor, ...], Tensor]:
        """Run the model on a batch, without a loss."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            out = model(pixel_values=self._images(inputs["pixel_values"]))
        return None, self._predictions(out), inputs["labels"]

    def create_model_card(
        self, model_name: str | None = None, tags: Any = (), dataset: Any = None, **rest: Any
    ) -> None:
        """Write the model card that `push_to_hub` sends: settings and the last evaluation."""
        if self.is_world_process_zero():
            from idml_hf.hub.trainer_card import write_trainer_card

            write_trainer_card(self, model_name=model_name, tags=tags or (), dataset=dataset)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        dataset: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Push model, image processor and card.

        Nothing else of the output folder goes with them: neither checkpoints, which are for resuming here, nor the
        arguments of the trainer, which may hold a token.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(dataset=dataset, **kwargs)
        return self._push_folder(self.args.output_dir, commit_message, token, revision, private, dataset)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with clear_writing_errors(f"A checkpoint in {self.args.output_dir}"):
            super()._save_checkpoint(*args, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the model of a checkpoint, where `hub_strategy` asks for more than the last one."""
        if self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            self._push_folder(checkpoint_folder, f"Training in progress, step {self.state.global_step}")

    def _push_folder(
        self,
        folder: str,
        message: str | None,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        dataset: Any = None,
    ) -> Any:
        from idml_hf.hub.push import push_folder
        from idml_hf.hub.trainer_card import trainer_record

        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        return push_folder(
            folder,
            str(self.hub_model_id),
            bool(private),
            token=token or self.args.hub_token,
            commit_message=message,
            revision=revision or self.args.hub_revision,
            record=trainer_record(self, dataset),
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the state of the uncertainty beside each training loss."""
        if "loss" in logs:
            logs |= self.uncertainty_monitor.logs()
        super().log(logs, start_time)


__all__ = ["DeterministicTrainer"]
