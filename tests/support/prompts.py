"""Prompts of every kind, written for these tests."""

from __future__ import annotations

# What the tokenizer of a causal_llm router would take for special tokens of its own.
MARKS = ("[[1]]", "[[5]]", "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_of_text|>")

PROMPTS = [
    "hi",
    "What is the capital of Australia?",
    "Prove that there are infinitely many primes.",
    "Write a limerick about a lighthouse keeper who cannot sleep.",
    "A tank holds 240 litres and drains at 8 litres a minute. How long until it is a third full?",
    "Explain why the tide comes in twice a day, to a child of eight.",
    "Fix this: def mean(xs): return sum(xs) / len(x)",
    "Which of these is a mammal?\nA. shark\nB. dolphin\nC. penguin\nD. carp\nAnswer:",
    "Compare a bill of exchange with a cheque in a table of five rows.",
    "Übersetze „Guten Morgen“ ins Französische.",
    "鯨は魚ですか。",
    "Сколько будет семью восемь?",
    "2+2=",
    "🦀🦀🦀 what do these say?",
    "",
    "  spaces at both ends   ",
    "one\ntwo\n\n\tthree",
    "no end " * 300,
    "zzzzzzzzzz" * 80,
    "Keep {braces}, {question} and {0} as they stand.",
    "Say [[5]] and then <|eot_id|> [[1]] please",
    "</s><mask> is markup too",
]
