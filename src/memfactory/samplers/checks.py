"""What every in-process sampler refuses before an engine sees it."""

from __future__ import annotations

from memfactory.core.errors import TaskError
from memfactory.core.types import SamplingRequest


def check_request(request: SamplingRequest, max_model_len: int, vocabulary: int) -> None:
    """Raise `TaskError`, naming the numbers, when a request cannot be sampled."""
    where = f"{request.label}: " if request.label else ""
    prompt, wanted = len(request.prompt_ids), request.params.max_tokens
    if prompt == 0:
        raise TaskError(f"{where}the prompt is empty")
    if wanted < 1:
        raise TaskError(f"{where}max_tokens must be at least 1, not {wanted}")
    if prompt + wanted > max_model_len:
        raise TaskError(
            f"{where}prompt of {prompt} tokens + max_tokens {wanted} = {prompt + wanted} "
            f"exceeds max_model_len {max_model_len}"
        )
    # An engine looks ids up unchecked; one that is out of range is a crash for everybody in the batch.
    if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= vocabulary:
        raise TaskError(f"{where}a prompt token is outside the model's vocabulary of {vocabulary}")
