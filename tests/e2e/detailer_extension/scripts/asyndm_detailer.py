"""Test extension: repaints parts of finished pictures with jobs of its own, in the midst of the job around them, in all
that concerns other scripts as ADetailer does it.

Named after its folder, so that one server can have it before and after the extension under test. Its arguments are
lists of the prompts for the parts of each picture (nothing: not at all; an empty text: the picture's own prompt), and
whether the extension under test is among the scripts that run in these jobs.
"""

from __future__ import annotations

from copy import copy
from pathlib import Path

import gradio as gr
from modules import scripts, shared
from modules.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from PIL import Image, ImageDraw

NAME = Path(scripts.basedir()).name


class DetailerScript(scripts.Script):
    def title(self):
        return NAME

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [
            gr.Textbox(value="", visible=False, elem_id=self.elem_id("prompts")),
            gr.Checkbox(value=False, visible=False, elem_id=self.elem_id("with_asyndm")),
        ]

    def process(self, p, prompts="", with_asyndm=False, *rest):
        if prompts and not getattr(p, "_ad_disabled", False):
            names = [script.title() for script in p.scripts.alwayson_scripts]
            where = "before" if names.index(NAME) < names.index("AsynDM") else "after"
            p.extra_generation_params["Detailer"] = f"{where} the other"

    def postprocess_image(self, p, pp, prompts="", with_asyndm=False, *rest):
        if not prompts or getattr(p, "_ad_disabled", False):
            return
        if p.batch_index == 0:
            all_prompts = copy(p.all_prompts)
            p.scripts.postprocess(copy(p), Processed(p, [], p.seed, ""))
            p.all_prompts = all_prompts
        made = inner_job(p, pp.image, with_asyndm)
        for number, prompt in enumerate(prompts):
            one = copy(made)
            one.init_images = [pp.image]
            one.image_mask = part(pp.image.size, number)
            one.prompt = prompt or p.all_prompts[p.iteration * p.batch_size + p.batch_index]
            one.seed = p.all_seeds[p.iteration * p.batch_size + p.batch_index] + number
            one.cached_c, one.cached_uc = [None, None], [None, None]
            try:
                processed = process_images(one)
            finally:
                one.close()
            pp.image = processed.images[0]
        if p.batch_index == p.batch_size - 1:
            all_prompts = copy(p.all_prompts)
            again = copy(p)
            p.scripts.before_process(again)
            p.scripts.process(again)
            p.all_prompts = all_prompts


def inner_job(p, image: Image.Image, with_asyndm: bool) -> StableDiffusionProcessingImg2Img:
    """What all parts of a picture have in common."""
    job = StableDiffusionProcessingImg2Img(
        init_images=[image],
        denoising_strength=0.7,
        mask=None,
        mask_blur=4,
        inpainting_fill=1,
        inpaint_full_res=True,
        inpaint_full_res_padding=32,
        inpainting_mask_invert=0,
        sd_model=p.sd_model,
        outpath_samples=p.outpath_samples,
        outpath_grids=p.outpath_grids,
        prompt="",
        negative_prompt=p.negative_prompt,
        styles=p.styles,
        subseed_strength=p.subseed_strength,
        sampler_name=p.sampler_name,
        scheduler=p.scheduler,
        batch_size=1,
        n_iter=1,
        steps=p.steps,
        cfg_scale=p.cfg_scale,
        width=p.width,
        height=p.height,
        extra_generation_params={k: v for k, v in p.extra_generation_params.items() if not callable(v)},
        do_not_save_samples=True,
        do_not_save_grid=True,
        override_settings={},
    )
    job.cached_c, job.cached_uc = [None, None], [None, None]
    runner = copy(p.scripts)
    runner.alwayson_scripts = [s for s in runner.alwayson_scripts if s.title() == "AsynDM" and with_asyndm]
    job.scripts, job.script_args = runner, type(p.script_args)(map(copied, p.script_args))
    job._ad_disabled = job._ad_inner = True
    shared.state.job_count += 1
    return job


def copied(argument):
    try:
        return copy(argument)
    except TypeError:
        return argument


def part(size: tuple[int, int], number: int) -> Image.Image:
    """A box of a quarter of the picture, elsewhere for every number."""
    width, height = size[0] // 2, size[1] // 2
    mask = Image.new("L", size, 0)
    left, top = width * (number % 2), height * (number // 2 % 2)
    ImageDraw.Draw(mask).rectangle((left, top, left + width - 1, top + height - 1), fill=255)
    return mask
