"""BERTScore (arXiv 1904.09675) by the `bert-score` package, an extra: `pip install 'memfactory[bertscore]'`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.core.texts import nfc

#: Texts that the model reads at once.
_BATCH_SIZE = 32


def bert_score(
    predictions: Sequence[str],
    golds: Sequence[Sequence[str]],
    *,
    model: str = "roberta-large",
    layers: int | None = None,
    device: str = "cpu",
) -> list[float]:
    """F1 of BERTScore of every prediction, the best over its gold answers, neither rescaled nor weighted.

    All pairs go to the model in one call, which makes batches of them; the model stays loaded for the next call.

    `model` is a hub id or a folder; `layers`, the layer whose vectors are compared, is known for the models that
    the package lists and must be given for others. Values depend on the model: name it beside them. An empty
    prediction scores 0.0, and so does one without golds.

    Raises `BadInput` when the package, the model or the layer is missing; `ValueError` for lists of unequal length.
    """
    if len(predictions) != len(golds):
        raise ValueError(f"{len(predictions)} predictions and {len(golds)} lists of golds")
    listed = [[one] if isinstance(one, str) else list(one) for one in golds]
    pairs = [
        (place, nfc(said), nfc(gold))
        for place, (said, wanted) in enumerate(zip(predictions, listed, strict=True))
        for gold in wanted
        if said.strip() and gold.strip()
    ]
    best = [0.0] * len(predictions)
    if not pairs:
        return best
    scorer = open_scorer(model, layers, device)
    _, _, f1 = scorer.score([said for _, said, _ in pairs], [gold for _, _, gold in pairs])
    for (place, _, _), value in zip(pairs, f1.tolist(), strict=True):
        best[place] = max(best[place], float(value))
    return best


@lru_cache(maxsize=1)
def open_scorer(model: str, layers: int | None = None, device: str = "cpu") -> Any:
    """The package's scorer with its model loaded; the last one that was asked for is kept.

    Raises `BadInput` when the package, the model or the layer is missing.
    """
    try:
        from bert_score import BERTScorer
        from bert_score.utils import model2layers
    except ImportError as error:
        raise BadInput(
            f"BERTScore needs the package bert-score ({error}): pip install 'memfactory[bertscore]'"
        ) from None
    if layers is None and model not in model2layers:
        raise BadInput(
            f"BERTScore: no layer is known for the model '{model}'; give evaluation.bertscore.layers, "
            "from 1 to its number of layers"
        )
    folder = Path(model).expanduser()
    try:
        return BERTScorer(
            model_type=str(folder) if folder.is_dir() else model,
            num_layers=layers,
            batch_size=_BATCH_SIZE,
            device=device,
            use_fast_tokenizer=True,
        )
    except (OSError, AssertionError, ValueError) as error:
        raise BadInput(
            f"BERTScore: the model '{model}' cannot be used: {str(error).splitlines()[0]}"
        ) from error
