"""Judges that load real files: the packages' own architectures with random weights, as small as they go.

No stand-in is behind the interface: folders and files are what the real ones are, only small.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asyndm_ext.evaluate.metrics import MetricUnavailable
from asyndm_ext.evaluate.metrics.choose import chosen
from asyndm_ext.evaluate.prompts import Prompt

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 255, size, np.uint8)) for size in ((40, 40, 3), (40, 72, 3))]
PROMPTS = [Prompt("a cat", "pets"), Prompt("two dogs", "pets")]
LETTERS = [chr(n) for n in range(ord("a"), ord("z") + 1)]


# --- open_clip ------------------------------------------------------------------------------------------------------


def test_hps_reads_the_authors_kind_of_file(tmp_path, monkeypatch):
    """Their checkpoint holds the weights under "state_dict"; a picture that is not square is not cut."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    tiny = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "asyndm-tiny", tiny)
    model, *_ = open_clip.create_model_and_transforms("asyndm-tiny")
    weights = tmp_path / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, weights)
    metric = chosen(f"hps:weights={weights},model=asyndm-tiny")
    scores = metric.score(PICTURES, PROMPTS)
    *_, whole = open_clip.create_model_and_transforms("asyndm-tiny", image_resize_mode="longest")
    for picture, prompt, found in zip(PICTURES, PROMPTS, scores, strict=True):
        with torch.no_grad():
            seen = model.eval().encode_image(whole(picture)[None])[0]
            said = model.encode_text(open_clip.get_tokenizer("asyndm-tiny")([prompt.text]))[0]
        assert found == {"hps": pytest.approx(float(torch.cosine_similarity(seen, said, dim=0)), abs=1e-5)}
    wide = metric._preprocess(Image.new("RGB", (72, 40), "white"))
    assert wide.shape == (3, 32, 32) and float(wide[:, 0].max()) < float(wide[:, 16].min()), "black above and below"
    with pytest.raises(MetricUnavailable, match="hps: there are no weights at"):
        chosen("hps:weights=/no/such/file")


# --- transformers: CLIP ---------------------------------------------------------------------------------------------


def clip_words(folder: Any) -> Any:
    """A CLIP tokenizer of single letters."""
    from transformers import CLIPTokenizer

    symbols = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({symbol: n for n, symbol in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def test_pickscore_is_the_models_own_score(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    config = transformers.CLIPConfig(
        text_config={**shape, **ends, "vocab_size": 54, "max_position_embeddings": 77},
        vision_config={**shape, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(pictures, clip_words(tmp_path)).save_pretrained(tmp_path)
    scores = chosen(f"pickscore:weights={tmp_path}").score(PICTURES, PROMPTS)
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path)
    for picture, prompt, found in zip(PICTURES, PROMPTS, scores, strict=True):
        inputs = processor(text=[prompt.text], images=[picture], return_tensors="pt")
        with torch.no_grad():
            out = model(**inputs)
            cosine = torch.cosine_similarity(out.text_embeds, out.image_embeds)
        assert found["pickscore"] == pytest.approx(float(model.logit_scale.exp() * cosine), rel=1e-4)
    assert scores[0] != scores[1]
    with pytest.raises(MetricUnavailable, match="no model in the folder"):
        chosen("pickscore:weights=/no/such/folder")


# --- transformers: a vision-language model --------------------------------------------------------------------------

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A folder as that of Qwen2.5-VL-7B-Instruct."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("qwen")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o")]
    vocabulary = {symbol: n for n, symbol in enumerate([*letters, *map("".join, merges)])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=SPECIAL
    )
    ids = {name: words.convert_tokens_to_ids(name) for name in SPECIAL}
    torch.manual_seed(0)
    text = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": len(words),
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**vision, "fullatt_block_indexes": [0], "window_size": 56},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    transformers.Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)
    transformers.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 112).save_pretrained(folder)
    named = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**named, "processor_class": "Qwen2_5_VLProcessor", "image_processor_type": "Qwen2VLImageProcessor"})
    )
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "processor_class": "Qwen2_5_VLProcessor"}))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


def test_vqascore_is_the_probability_of_yes(qwen):
    metric = chosen(f"vqascore:weights={qwen},dtype=float32")
    scores = metric.score(PICTURES, PROMPTS)
    vlm = metric._vlm
    token = vlm._processor.tokenizer.convert_tokens_to_ids("Yes")
    for picture, prompt, found in zip(PICTURES, PROMPTS, scores, strict=True):
        inputs = vlm._inputs(picture, f'Does this figure show "{prompt.text}"? Please answer yes or no.')
        said = vlm._processor.batch_decode(inputs["input_ids"])[0]
        assert f'"{prompt.text}"' in said and said.endswith("assistant\n") and "<|image_pad|>" in said
        with torch.no_grad():
            logits = vlm._model(**inputs).logits[0, -1]
        assert found["vqascore"] == pytest.approx(float(logits.softmax(-1)[token]), rel=1e-5)
    assert 0 < scores[0]["vqascore"] < 1 and scores[0] != scores[1]


def test_the_mark_is_asked_for_with_the_same_loading(qwen):
    """Random weights say nothing that is a mark, or one; either way it is a real answer."""
    scores = chosen(f"vlm:weights={qwen},dtype=float32").score(PICTURES, PROMPTS)
    assert len(scores) == 2 and all(set(one) <= {"vlm"} for one in scores)


def test_soft_tifa_asks_every_question_for_its_own_answer(qwen):
    asked = Prompt("a cat, two dogs", "pets", questions=(("Is there a cat?", "Yes"), ("Is there a cow?", "No")))
    metric = chosen(f"softtifa:weights={qwen},dtype=float32")
    first, nothing = metric.score(PICTURES, [asked, PROMPTS[1]])
    sure = [
        metric._vlm.probability(PICTURES[0], f"{question} Please answer with one word.", answer)
        for question, answer in asked.questions
    ]
    assert first["softtifa"] == pytest.approx((sure[0] * sure[1]) ** 0.5)
    assert first["softtifa_parts"] == pytest.approx(sum(sure) / 2) and sure[0] != sure[1]
    assert nothing == {}
    with pytest.raises(ValueError, match="softtifa asks the questions that come with the prompts"):
        metric.check(PROMPTS)


# --- torchmetrics: Inception ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A file as weights-inception-2015-12-05-6726825d.pth: the network's whole size, random numbers."""
    pytest.importorskip("torchmetrics")
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("inception") / "weights-inception.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        # It has no way to be made without weights.
        patch.setattr(extractor, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        network = extractor.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):  # as large as it takes for the last layer to see a difference
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path


def test_fid_and_kid_are_those_of_torchmetrics(tmp_path, inception):
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    from asyndm_ext.evaluate.distances import Reference, fid, kid
    from asyndm_ext.evaluate.metrics.inception import square

    pictures = [Image.fromarray(RNG.integers(0, 255, (60, 90, 3), np.uint8)) for _ in range(6)]
    photographs = [Image.fromarray(RNG.integers(0, 90, (80, 70, 3), np.uint8)) for _ in range(6)]
    judge = chosen(f"fid:weights={inception},reference={tmp_path}")
    mine, others = judge.features(pictures), Reference.of_rows(judge.features(photographs))
    assert mine.shape == (6, 2048)

    def tensors(some):
        squares = np.stack([np.asarray(square(one)) for one in some])
        return torch.from_numpy(squares).permute(0, 3, 1, 2)

    theirs = FrechetInceptionDistance(feature_extractor_weights_path=str(inception))
    kernel = KernelInceptionDistance(feature=theirs.inception, subsets=1, subset_size=6)
    for metric in (theirs, kernel):
        metric.update(tensors(photographs), real=True)
        metric.update(tensors(pictures), real=False)
    assert fid(mine, others).value == pytest.approx(float(theirs.compute()), rel=1e-3)
    assert fid(mine, others).value > 1, "far enough apart to be compared"
    # Their kernel is in single precision.
    assert kid(mine, others).value == pytest.approx(float(kernel.compute()[0]), rel=1e-2)


def test_what_is_not_inceptions_is_said(tmp_path, inception):
    with pytest.raises(MetricUnavailable, match="there are no weights at"):
        chosen(f"fid:weights=/no/such/file,reference={tmp_path}")
    with pytest.raises(MetricUnavailable, match="there is no reference at"):
        chosen(f"fid:weights={inception}")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(MetricUnavailable, match="does not hold the Inception network's weights"):
        chosen(f"fid:weights={tmp_path / 'other.pth'},reference={tmp_path}")
    (tmp_path / "torn.pth").write_bytes(inception.read_bytes()[:1000])
    with pytest.raises(MetricUnavailable, match="does not hold the Inception network's weights"):
        chosen(f"fid:weights={tmp_path / 'torn.pth'},reference={tmp_path}")


def test_a_folder_of_photographs_on_the_command_line(tmp_path, inception):
    from asyndm_ext.evaluate.main import main
    from tests.support.small_world import save_small

    save_small(tmp_path / "w")
    (tmp_path / "photographs").mkdir()
    for n, picture in enumerate(PICTURES):
        picture.save(tmp_path / "photographs" / f"{n}.jpg")
    command = f"--prompts 2 --kind usual --methods concave --steps 4 --true-scenes 0 --weights {tmp_path / 'w'}"
    metric = f"--metric fid:weights={inception},reference={tmp_path / 'photographs'}"
    assert main(f"{command} {metric} --out {tmp_path / 'run'}".split()) == 0
    table = (tmp_path / "run" / "distances.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in table[1:]] == [
        ["plain", "FID", "2"],
        ["plain", "KID x 1000", "2"],
        ["concave", "FID", "2"],
        ["concave", "KID x 1000", "2"],
    ]
