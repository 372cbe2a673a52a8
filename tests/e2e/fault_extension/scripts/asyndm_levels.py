"""Test extension: what the extension under test did in the last job, and what it left behind."""

from __future__ import annotations

import gradio as gr
import torch
from modules import (
    img2img,
    infotext_utils,
    processing,
    prompt_parser,
    script_callbacks,
    scripts,
    sd_samplers,
    sd_samplers_common,
    sd_samplers_kdiffusion,
    shared,
)

try:
    from asyndm_ext.hosts.webui import finders, host, job
    from asyndm_ext.prompt.objects import parse_objects
except ImportError:  # the WebUI without the extension under test
    finders = host = job = None

records: list[dict] = []
packed: dict = {}
samplers: list = []
history: list[dict] = []  # of all jobs of a batch folder


def watch(record):
    """One step: the host's own level and the maps, rows of numbers per image."""
    # A copy: what AsynDM keeps beside a map of its own would be counted as growing in tests of its memory.
    history.append({"step": record.step, "strength": record.strength.clone()})
    del history[:-200]
    records.append(
        {
            "step": record.step,
            "nominal": record.nominal,
            "level": record.level[:, 0].tolist(),
            "strength": record.strength[:, 0].tolist(),
        }
    )


class LevelsScript(scripts.Script):
    """Notes the sampler of every pass; starts the records anew with every job."""

    def title(self):
        return "asyndm levels"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(value="", visible=False, elem_id=self.elem_id("none"))]

    def before_process(self, p, *args):
        records.clear()
        samplers.clear()
        packed.clear()
        packed.update(pack(p))

    def process_before_every_sampling(self, p, *args, **kwargs):
        samplers.append(p.sampler)


def pack(p) -> dict:
    """The arguments of a job's always-on scripts as stable-diffusion-webui-distributed sends them to its workers, and
    what it sends along of the extension under test: all attributes of the job."""
    packs = {s.title(): {"args": list(p.script_args[s.args_from : s.args_to])} for s in p.scripts.scripts if s.alwayson}
    return {**packs, "attributes": {k: type(v).__name__ for k, v in vars(p).items() if k.startswith("asyndm")}}


class InnerPassScript(scripts.Script):
    """Marks a job as one that ADetailer makes for itself."""

    def title(self):
        return "asyndm inner pass"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(value=False, visible=False, elem_id=self.elem_id("marked"))]

    def before_process(self, p, marked=False, *rest):
        if marked:
            p._ad_inner = True


class PromptsScript(scripts.Script):
    """Gives each image of a job a prompt of its own, as extensions for dynamic prompts do."""

    def title(self):
        return "asyndm prompts"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(value="", visible=False, elem_id=self.elem_id("prompts"))]

    def process(self, p, prompts="", *rest):
        if prompts:
            p.all_prompts = list(prompts)


def sample_elsewhere(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A sampler that nobody else knows: Euler with a bend of its own."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - 0.99 * denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def add_sampler() -> None:
    """Puts it on the WebUI's lists, once, as extensions with samplers of their own do."""
    data = sd_samplers_common.SamplerData(
        "Elsewhere", lambda model: sd_samplers_kdiffusion.KDiffusionSampler(sample_elsewhere, model), ["elsewhere"], {}
    )
    if data.name not in sd_samplers.all_samplers_map:
        sd_samplers.all_samplers.append(data)
        sd_samplers.all_samplers_map[data.name] = data
        sd_samplers.set_samplers()


def leftovers() -> list[dict]:
    """Per pass, what the job's own objects carry now: sampler function, class of the denoiser, overrides."""
    found = []
    for sampler in samplers:
        denoiser = sampler.model_wrap_cfg
        own = [name for name, value in vars(denoiser).items() if callable(value) and hasattr(type(denoiser), name)]
        found.append(
            {
                "func": f"{sampler.func.__module__}.{sampler.func.__qualname__}",
                "replaced": hasattr(sampler.func, "asyndm_host_function"),
                "denoiser": f"{type(denoiser).__module__}.{type(denoiser).__qualname__}",
                "overrides": own,
            }
        )
    return found


def batch_folder(body: dict) -> list[dict]:
    """What img2img's Batch tab does with a folder: one job object for all of its pictures.

    Returns, for each picture's first step, the map's shape and its slow pixels as left, top, right, bottom.
    """
    p = processing.StableDiffusionProcessingImg2Img(
        sd_model=shared.sd_model, prompt=body["prompt"], seed=1, steps=4, cfg_scale=7, sampler_name="Euler",
        denoising_strength=0.75, init_images=[], mask_blur=0, inpainting_fill=1, inpaint_full_res=body["only_masked"],
        inpaint_full_res_padding=0, do_not_save_samples=True, do_not_save_grid=True,
    )  # fmt: skip
    p.scripts = scripts.scripts_img2img
    values = [None] * max(script.args_to for script in p.scripts.scripts)
    for script in p.scripts.alwayson_scripts:
        values[script.args_from : script.args_to] = [control.value for control in script.controls or ()]
        if script.title() == "AsynDM":
            values[script.args_from] = body["settings"]
    values[0] = 0  # no selectable script
    p.script_args = tuple(values)
    history.clear()
    img2img.process_batch(p, body["pictures"], body["output"], body["masks"], values, to_scale=True)
    firsts = [record for record in history if record["step"] == 0]
    found = []
    for record in firsts:
        rows, columns = (record["strength"][0, 0] > 0).nonzero(as_tuple=True)
        box = [int(edge) for edge in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
        found.append({"shape": list(record["strength"].shape), "box": box})
    return found


def width(encoder) -> int:
    """Of a token's vector."""
    if hasattr(encoder, "encode_embedding_init_text"):
        return encoder.encode_embedding_init_text(",", 1).shape[-1]
    return encoder.text_encoder.transformer.config.hidden_size


def columns(body: dict) -> dict:
    """Columns of a name in a text, and the text's tokens with their columns (where its tokenizer has a start token)."""
    finder = host.current().finder()
    spec = parse_objects(body["name"])[0]
    found = list(finder.columns(body["text"], spec))
    if isinstance(finder, finders.JoinedFinder):
        return {"columns": found, **joined(finder, body["text"])}
    encoder = finder.encoder
    chunks = encoder.tokenize_line(body["text"])[0]
    answer = {
        "columns": found,
        "tokens": [encoder.tokenizer.convert_ids_to_tokens(chunk.tokens) for chunk in chunks]
        if isinstance(finder, finders.PieceFinder)
        else [],
        "wanted": encoder.tokenize([spec.name])[0],
        "length": sum(len(chunk.tokens) for chunk in chunks),
    }
    if not isinstance(finder, finders.PieceFinder):
        ids, positions, _ = finder.line(body["text"])
        answer.update(ids=dict(zip(map(str, positions), ids, strict=True)), width=width(encoder))
    return answer


@torch.inference_mode()
def joined(finder, text: str) -> dict:
    """Of a text that CLIP and T5 read: the conditioning that the model makes of it, and where T5's vectors are in it.

    Vectors are rounded; T5's are those that it makes of the text alone.
    """
    conditioning = shared.sd_model.get_learned_conditioning(prompt_parser.SdConditioning([text]))["crossattn"][0]
    clip = finder.clip.length(text)
    arguments = {} if hasattr(finder.t5.encoder, "min_length") else {"token_count": clip}
    alone = finder.t5.encoder([text], **arguments)[0].to(conditioning)
    return {
        "shape": list(conditioning.shape),
        "clip": clip,
        "is_t5_behind": bool(torch.equal(conditioning[clip:], alone)) and bool(alone.any()),
        "pieces": finder.t5.encoder.tokenizer.convert_ids_to_tokens([token for _, token in finder.t5.pieces(text)]),
    }


@torch.inference_mode()
def behind_reference(body: dict) -> dict:
    """From where on Qwen-Image-Edit's answers to two texts differ, behind a picture of ``size``; and where an object of
    the first one is, in a job that has that answer.

    A language model sees what came before alone, so what differs begins with the first token that does.
    """
    from backend.args import dynamic_args

    from asyndm_ext.hosts.forge.text import finder_of

    height, width = body["size"]
    pictures = [torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(1))]
    first, other = (
        shared.sd_model.get_learned_conditioning_with_image([text], pictures)[0].float() for text in body["texts"]
    )
    finder = finder_of(shared.sd_model, lambda: (body["texts"][0], len(first)))
    dynamic_args.ref_latents.clear()
    differs = ((first - other).abs().amax(-1) > 1e-4 * first.abs().max()).nonzero().flatten()
    return {
        "columns": list(finder.columns(body["texts"][0], parse_objects(body["name"])[0])),
        "differs": int(differs[0]),
        "length": len(first),
    }


def pasted(body: dict) -> dict:
    """What our controls of a tab ("txt2img" or "img2img") are set to when this infotext is pasted, by their names;
    None: they stay as they are."""
    params = infotext_utils.parse_generation_parameters(body["infotext"])
    return {name: key(params) for name, key in our_fields(body.get("tab", "txt2img")).items()}


def our_fields(tab: str) -> dict:
    """How our controls of a tab read an infotext, by their names."""
    found = {}
    for field, key in infotext_utils.paste_fields[tab]["fields"]:
        before, ours, name = (getattr(field, "elem_id", None) or "").partition("_asyndm_")
        if ours and before.endswith(tab):
            found[name.removesuffix("-checkbox")] = key
    return found


def sent_along() -> dict:
    """Our controls that the buttons below a picture copy to the other tab, for each tab."""
    return {
        tab: [name for name, key in our_fields(tab).items() if key in runner.paste_field_names]
        for tab, runner in (("txt2img", scripts.scripts_txt2img), ("img2img", scripts.scripts_img2img))
    }


def axis_labels() -> list[str]:
    """Of the X/Y/Z plot, doubles included."""
    plots = [data.module for data in scripts.scripts_data if hasattr(data.module, "axis_options")]
    return [option.label for plot in plots[:1] for option in plot.axis_options]


def on_app_started(demo, app):
    """Adds the routes and the watcher, once however often the page is reloaded."""
    app.add_api_route("/asyndm-probe/levels", lambda: records, methods=["GET"])
    app.add_api_route("/asyndm-probe/sent-along", sent_along, methods=["GET"])
    own = "/asyndm/"
    app.add_api_route(
        "/asyndm-probe/own-routes",
        lambda: sorted(route.path for route in app.routes if getattr(route, "path", "").startswith(own)),
        methods=["GET"],
    )
    app.add_api_route("/asyndm-probe/axes", axis_labels, methods=["GET"])
    app.add_api_route("/asyndm-probe/packed", lambda: packed, methods=["GET"])
    app.add_api_route("/asyndm-probe/batch", batch_folder, methods=["POST"])
    app.add_api_route("/asyndm-probe/leftovers", leftovers, methods=["GET"])
    app.add_api_route("/asyndm-probe/columns", columns, methods=["POST"])
    app.add_api_route("/asyndm-probe/behind-reference", behind_reference, methods=["POST"])
    app.add_api_route("/asyndm-probe/pasted", pasted, methods=["POST"])
    if job is not None:  # a reload brings a new function of the same name
        job.watchers[:] = [w for w in job.watchers if w.__module__ != watch.__module__] + [watch]


add_sampler()
script_callbacks.on_app_started(on_app_started)
