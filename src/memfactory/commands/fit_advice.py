"""What to change in a recipe so that its run fits on the GPUs: the first changes that do it, cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from memfactory.commands.fit import Estimate
from memfactory.learners.memory_estimate import LearnerLayout, learner_memory
from memfactory.models.architecture import ModelShape


def advice(shape: ModelShape, first: Estimate) -> list[str] | None:
    """The changes to the command line that make it fit, as few as were found; None if none of ours is enough."""
    if first.fits:
        return []
    if first.written == "none":
        return None
    engines = first.engines
    if engines is not None and engines.beside and not (engines.sleeps or first.ahead):
        words = advice(shape, replace(first, engines=replace(engines, sleeps=True)))
        return None if words is None else ["sampler.sleep=true", *words]
    steps = _changes(first)
    chosen: list[int] = []
    for number in range(len(steps)):
        chosen.append(number)
        if _changed(shape, first, [steps[i] for i in chosen])[0].fits:
            break
    else:
        return None
    for number in list(chosen):  # those that turn out not to be needed go again
        rest = [i for i in chosen if i != number]
        if _changed(shape, first, [steps[i] for i in rest])[0].fits:
            chosen = rest
    _, shared = _changed(shape, first, [steps[i] for i in chosen])
    words = [steps[i][0] for i in chosen]
    needs_deepspeed = any("zero_stage" in word or "offload" in word for word in words)
    if (
        needs_deepspeed and first.written == "local"
    ):  # it has no such fields, also where DeepSpeed takes its place
        words.insert(0, "learner=deepspeed")
    return [*words, *shared]


_Change = tuple[str, Callable[[LearnerLayout], LearnerLayout]]


def _changes(first: Estimate) -> list[_Change]:
    """What can be changed, what changes the result least first."""
    now, found = first.layout, list[_Change]()
    if not now.gradient_checkpointing:
        found.append(
            ("learner.gradient_checkpointing=true", lambda x: replace(x, gradient_checkpointing=True))
        )
    smallest = max(now.longest, 1)
    if now.micro_batch_tokens > smallest:
        found.append(
            (
                f"learner.micro_batch_tokens={smallest}",
                lambda x: replace(x, micro_batch_tokens=smallest),
            )
        )
    if now.sharded and now.world > 1 and now.zero_stage < 3:
        found.append(("learner.zero_stage=3", lambda x: replace(x, zero_stage=3)))
    if now.sharded and now.dtype == "float32":
        found.append(("learner.dtype=bfloat16", lambda x: replace(x, dtype="bfloat16")))
    if not now.offload_optimizer and now.quantization is None:
        found.append(
            (
                "learner.offload_optimizer=true",
                lambda x: replace(x, sharded=True, offload_optimizer=True, zero_stage=max(x.zero_stage, 1)),
            )
        )
    if not now.lora_rank:
        group = "deepspeed_lora" if now.sharded else "local_lora"
        found.append(
            (
                f"learner={group}",
                lambda x: replace(
                    x, lora_rank=16, sharded=now.sharded, offload_optimizer=now.offload_optimizer
                ),
            )
        )
    if now.quantization is None:
        words = [] if now.lora_rank else ["learner=deepspeed_lora" if now.sharded else "learner=local_lora"]
        words += ["learner.zero_stage=2"] if now.sharded and now.zero_stage == 3 else []
        found.append((" ".join([*words, "learner.quantization=nf4"]), lambda x: _rounded(x, now)))
    return found


def _rounded(layout: LearnerLayout, now: LearnerLayout) -> LearnerLayout:
    """Adapters on a base in 4 bits, which cannot be sharded."""
    return replace(
        layout,
        quantization="nf4",
        lora_rank=layout.lora_rank or 16,
        sharded=now.sharded,
        zero_stage=min(layout.zero_stage, 2),
        offload_optimizer=now.offload_optimizer,
        offload_param=False,
    )


def _changed(shape: ModelShape, first: Estimate, changes: Sequence[_Change]) -> tuple[Estimate, list[str]]:
    """The estimate after some changes; the sampler's share of the GPU shrinks if it has to and can."""
    layout = first.layout
    for _, change in changes:
        layout = change(layout)
    now = replace(first, layout=layout, learner=learner_memory(shape, layout))
    if now.fits or now.engines is None or not now.engines.beside:
        return now, []
    left = now.gpus.usable - now.beside_sampler
    share = int(100 * left / now.gpus.memory) / 100
    if share <= 0 or share > 0.95:
        return now, []
    smaller = replace(now, engines=replace(now.engines, share=share))
    return (smaller, [f"sampler.gpu_memory_utilization={share:g}"]) if smaller.fits else (now, [])
