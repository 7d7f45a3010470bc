"""Training with the Hugging Face Trainer."""

from .arguments import IDMLTrainingArguments
from .trainer import IDMLTrainer

__all__ = ["IDMLTrainer", "IDMLTrainingArguments"]
