"""Judges of real checkpoints: how they are chosen, what they compute, what they say when something is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from asyndm_ext.evaluate.metrics import MetricUnavailable
from asyndm_ext.evaluate.metrics.bert_score import QUESTION as DESCRIBE
from asyndm_ext.evaluate.metrics.bert_score import BertScore
from asyndm_ext.evaluate.metrics.choose import chosen
from asyndm_ext.evaluate.metrics.vlm_score import VlmScore
from asyndm_ext.evaluate.prompts import Prompt

PICTURES = [Image.fromarray(np.full((20, 24, 3), shade, np.uint8)) for shade in (10, 200)]
PROMPTS = [Prompt("a cat", "pets"), Prompt("a dog", "pets")]


class Echo:
    """A vision-language model that gives prepared answers and remembers the questions."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def answer(self, picture, question, longest):
        self.asked.append(question)
        return self.answers.pop(0)


def test_the_papers_question_word_for_word():
    echo = Echo("7", "0")
    assert VlmScore(vlm=echo).score(PICTURES, PROMPTS) == [{"vlm": 7.0}, {"vlm": 0.0}]
    assert echo.asked[0] == (
        "You are given an image and a description. Please evaluate how well the image matches the description on a"
        " scale from 0 to 9, where 0 means completely unrelated and 9 means perfectly aligned. Return only the score as"
        " a single integer without explanation.\n Description: a cat"
    )


@pytest.mark.parametrize(
    ("answer", "mark"), [("8", 8), (" 3.", 3), ("Score: 6", 6), ("9/9", 9), ("10", None), ("7.5", None), ("none", None)]
)
def test_marks_are_read_from_answers(answer, mark):
    assert VlmScore(vlm=Echo(answer)).score(PICTURES[:1], PROMPTS[:1]) == [{} if mark is None else {"vlm": mark}]


def test_bertscore_asks_for_a_description_and_looks_for_the_prompt_in_it():
    seen = []

    def recall(descriptions, references):
        seen.append((descriptions, references))
        return [0.25, 0.75]

    echo = Echo("a grey square", "a bright one")
    scores = BertScore(vlm=echo, recall=recall).score(PICTURES, PROMPTS)
    assert scores == [{"bertscore": 0.25}, {"bertscore": 0.75}] and echo.asked == [DESCRIBE, DESCRIBE]
    assert seen == [(["a grey square", "a bright one"], ["a cat", "a dog"])]


@pytest.mark.parametrize(
    ("text", "package", "told"),
    [
        ("clipscore:weights=x", "open_clip", "open_clip_torch"),
        ("imagereward:weights=x", "ImageReward", "image-reward"),
        ("bertscore:weights=x,bert=y", "bert_score", "bert-score"),
        ("vlm:weights=x", "transformers", "transformers"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, text, package, told):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MetricUnavailable, match=told):
        chosen(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("beauty", "unknown metric 'beauty'"),
        ("clipscore:x", "not KEY=VALUE"),
        ("clipscore:weights=a,size=3", "size"),
        ("clipscore", "weights"),
        ("no.such.module:Judge", "no"),
        ("asyndm_ext.evaluate.metrics:Judge", "Judge"),
    ],
)
def test_what_is_no_metric(text, told):
    with pytest.raises(ValueError, match=told):
        chosen(text)


def test_a_judge_of_ones_own():
    metric = chosen("asyndm_ext.evaluate.metrics.little_world:LittleWorld")
    assert metric.columns[0].name == "exact"


def test_clipscore_with_random_weights(tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    tiny = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "asyndm-tiny", tiny)
    model, _, preprocess = open_clip.create_model_and_transforms("asyndm-tiny")
    weights = tmp_path / "tiny.pt"
    torch.save(model.state_dict(), weights)
    scores = chosen(f"clipscore:weights={weights},model=asyndm-tiny").score(PICTURES, PROMPTS)
    with torch.no_grad():
        for picture, prompt, found in zip(PICTURES, PROMPTS, scores, strict=True):
            seen = model.eval().encode_image(preprocess(picture)[None])[0]
            said = model.encode_text(open_clip.get_tokenizer("asyndm-tiny")([prompt.text]))[0]
            cosine = float(torch.cosine_similarity(seen, said, dim=0))
            assert found["clipscore"] == pytest.approx(cosine, abs=1e-5)
    with pytest.raises(MetricUnavailable, match="no weights at"):
        chosen("clipscore:weights=/no/such/file")
