"""CPU seconds of a weight sync with and without the proof that the weights arrived.

User and system time of this process, the median of several syncs, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Callable
from itertools import count
from unittest import mock

from memfactory.learners.local import LocalLearner
from memfactory.models.source import resolve_model
from memfactory.models.text import TextCodec
from memfactory.samplers import transfer_proof
from memfactory.samplers.sync import sync_and_check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny", help="alias, folder or hub id")
    parser.add_argument("--sampler", choices=("hf", "vllm"), default="vllm")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    folder = resolve_model(options.model)
    codec = TextCodec.from_folder(folder)
    learner = LocalLearner(model=folder, device="cpu")
    if options.sampler == "hf":
        from memfactory.samplers.hf import HfSampler as Sampler
    else:
        from memfactory.samplers.vllm import VllmSampler as Sampler
    sampler = Sampler(model_folder=folder, codec=codec, max_model_len=256)
    turns = count()
    prompts = [(11, 12, 13), (20, 21)]

    def transfer() -> None:
        transfer_proof.transfer(sampler, learner, 1, turn=next(turns))

    def whole() -> None:
        sync_and_check(sampler, learner, prompts, 1.0, version=1, turn=next(turns))

    proved = _milliseconds(transfer, options.repeats)
    with mock.patch.object(transfer_proof, "weights_dtype", return_value=None):
        plain = _milliseconds(transfer, options.repeats)
    print(f"{options.sampler}, {options.model}: milliseconds of CPU")
    print(f"weights alone {plain:.1f}")
    print(f"with checksums of what arrived {proved:.1f}")
    print(f"and log-probabilities {_milliseconds(whole, options.repeats):.1f}")
    sampler.close()


def _milliseconds(call: Callable[[], None], repeats: int) -> float:
    call()
    found = []
    for _ in range(repeats):
        before = _cpu()
        call()
        found.append(_cpu() - before)
    return statistics.median(found) * 1000


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
