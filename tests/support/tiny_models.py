"""Tiny random-weight transformers models with tokenizers, built on the spot: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["easy", "hard", "what", "is", "prove", "sum", "hello", "why", *(f"w{i}" for i in range(40))]


def _tokenizer(path: Path, specials: list[str], **names: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate([*specials, *WORDS, *map(chr, range(33, 127))])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", model_max_length=256, **names)
    return tokenizer, len(vocab)


def tiny_encoder(path: Path) -> Path:
    """A two-layer BERT of 32 dimensions."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer, size = _tokenizer(
        path, ["<pad>", "<unk>", "<cls>", "<sep>"], pad_token="<pad>", cls_token="<cls>", sep_token="<sep>"
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tiny_llm(path: Path, *, tied: bool = False) -> Path:
    """A two-layer Llama of 32 dimensions, with the Llama 3 header tokens and without label tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    marks = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer, size = _tokenizer(
        path, ["<pad>", "<unk>", "<bos>", "<eos>", *marks], pad_token="<pad>", eos_token="<eos>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def labelled_outcomes(count: int, seed: int = 0) -> list[Any]:
    """Outcomes that the words decide: strong wins on "hard" prompts (half), weak on "easy" ones, else a tie."""
    import random

    from routellm_core.data import Outcome

    rng = random.Random(seed)
    rows = []
    for i in range(count):
        kind = ["hard", "easy", "what", "hard"][i % 4]
        words = [*rng.choices(WORDS[8:], k=6), kind]
        rng.shuffle(words)
        scores = {"hard": (1, 0), "easy": (0, 1), "what": (1, 1)}[kind]
        rows.append(Outcome(prompt=" ".join(words), scores={"big": scores[0], "small": scores[1]}, source=kind))
    return rows
