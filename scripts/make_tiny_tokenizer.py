"""Build the word-level tokenizer of the embedded tiny policy.

One word, sign or number is one token, so that a policy of a million parameters can read English-like text.
Decoding puts the
spaces back where English has them: `decode(encode(text)) == text` and `encode(decode(ids)) == ids` for whatever the
synthetic generators print.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from memfactory.data.synthetic.vocabulary import REPLY_SIGNS, SIGNS, TOKEN, all_words

SPECIAL = ("<unk>", "<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if not loop.last or message['role'] != 'assistant' or not continue_final_message|default(false) %}"
    "<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SPACE_BEFORE = (".", ",", "?", "!", ":", ";", "}", "]", ")", "%", "'s")
NO_SPACE_AFTER = ("\\boxed{", "{", "[", "(", "$", "#")
VOCABULARY_SIZE = 2112


def build(size: int = VOCABULARY_SIZE) -> PreTrainedTokenizerFast:
    """Build the tokenizer; the vocabulary is filled up to `size` with spare tokens for paradigms to come."""
    words = [*SPECIAL, *all_words()]
    spare = size - len(words)
    if spare < 0:
        raise SystemExit(f"{len(words)} words do not fit into a vocabulary of {size}")
    words += [f"<spare_{number}>" for number in range(spare)]
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"<spare_[0-9]+>|" + TOKEN.pattern), behavior="removed", invert=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse(), *_glue()]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _glue() -> list[decoders.Decoder]:
    """Rules that remove the spaces which the word-by-word decoder put around signs."""
    quoted = [sign for sign in (*SIGNS, *REPLY_SIGNS) if '"' in sign and sign != '"']
    before = [*NO_SPACE_BEFORE, *(sign for sign in SIGNS if sign in ("}]", "]}")), *quoted]
    after = [*NO_SPACE_AFTER, *quoted]
    return [decoders.Replace(f" {sign}", sign) for sign in before] + [
        decoders.Replace(f"{sign} ", sign) for sign in after
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the tokenizer files are written")
    parser.add_argument(
        "--size", type=int, default=VOCABULARY_SIZE, help="vocabulary size, spare tokens included"
    )
    arguments = parser.parse_args()
    tokenizer = build(arguments.size)
    tokenizer.save_pretrained(arguments.folder)
    print(f"{len(tokenizer)} tokens written to {arguments.folder}")


if __name__ == "__main__":
    main()
