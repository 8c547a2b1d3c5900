"""Tiny random-weight transformers models with tokenizers, built on the spot: nothing is downloaded.

`tiny_encoder` and `tiny_llm` are bases to train; `published_bert` and `published_causal_llm` have the form of the
checkpoints that the authors published.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.prompts import PROMPTS

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


def published_bert(path: Path) -> Path:
    """A classifier in the form of the published bert router: XLM-RoBERTa, a unigram tokenizer, three unnamed labels."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    # By hand: what the trainers of tokenizers learn differs from one process to the next
    words = sorted({word for prompt in PROMPTS[:9] for word in prompt.split()})
    pieces = [(token, 0.0) for token in specials] + [("▁", -2.0)]
    pieces += [(chr(code), -6.0) for code in range(33, 127)] + [(f"▁{word}", -8.0) for word in words]
    core = Tokenizer(models.Unigram(pieces, unk_id=3))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=512, bos_token="<s>", cls_token="<s>", eos_token="</s>",
        sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip
    torch.manual_seed(0)
    config = XLMRobertaConfig(  # type: ignore[call-arg]
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, initializer_range=0.25, num_labels=3,
    )  # fmt: skip
    XLMRobertaForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def published_causal_llm(path: Path) -> Path:
    """A rating model in the form of the published causal_llm router: a Llama in bfloat16, two text files beside it.

    As there, the model has rows for the label tokens and the tokenizer lacks them. They are likely, so that some
    prompts get a rating at once, some after other tokens and some none.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    marks = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    specials = ["<|begin_of_text|>", "<|end_of_text|>", *marks]
    system = "Rate from 1 to 5 how well a small model would answer. 5 is best. Write the rating alone, as [[rating]]."
    template = "[Prompt]\n{question}\n\nRating:"
    # Bytes, and pairs that merge within words, between words and across line ends
    merges = [("t", "h"), ("th", "e"), ("Ġ", "t"), ("i", "n"), ("Ġ", "Ġ"), ("Ċ", "Ċ"), ("Ġ", "Ċ"), (":", "Ċ")]
    tokens = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        "<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=8192, bos_token=specials[0], eos_token=specials[1]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=8192, initializer_range=0.15,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[-5:] *= 2.0
    model.to(torch.bfloat16).save_pretrained(path)  # type: ignore[arg-type]
    tokenizer.save_pretrained(path)
    (path / "system_ft_v5.txt").write_text(system, encoding="utf-8")
    (path / "classifier_ft_v5.txt").write_text(template, encoding="utf-8")
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
