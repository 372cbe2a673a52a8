"""The AlwaysOn script: glue between the WebUI's callbacks and the extension's package."""

from modules import script_callbacks, scripts, shared
from modules.ui_components import InputAccordion

from asyndm_ext.hosts.webui import job, options, pictures, plain_pictures, prompt_tokens, refusal, routes, xyz
from asyndm_ext.ui import compared, infotext, panel


def with_styles(prompt, styles):
    """A prompt as a job would have it; what the page has not sent yet is None."""
    return shared.prompt_styles.apply_styles_to_prompt(prompt or "", styles or [])


class AsynDM(scripts.Script):
    """Its panel and what a job does with it."""

    def __init__(self):
        super().__init__()
        self.prompt = {}

    def title(self):
        return "AsynDM"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def after_component(self, component, **kwargs):
        tab = "img2img" if self.is_img2img else "txt2img"
        if kwargs.get("elem_id") in (f"{tab}_prompt", f"{tab}_styles"):
            self.prompt[kwargs["elem_id"]] = component
        compared.place(component, kwargs.get("elem_id"), tab)

    def ui(self, is_img2img):
        xyz.register(self.title())  # here, because the plot draws its menus after the always-on scripts
        boxes = tuple(self.prompt[key] for key in sorted(self.prompt))  # the prompt's own, then its styles
        prompt = (
            panel.PromptSource(boxes, with_styles, prompt_tokens.found, prompt_tokens.places)
            if len(boxes) == 2
            else None
        )
        controls = panel.build(InputAccordion, self.elem_id, prompt, inpaint=is_img2img)
        self.infotext_fields = panel.infotext_fields(controls)
        # By these the buttons below a picture know the controls that go along to another tab.
        self.paste_field_names = [key for _, key in self.infotext_fields if key is not infotext.pasted("mask")]
        return list(controls.values())

    def process(self, p, *args):
        job.begin(p, args)

    def before_process_batch(self, p, *args, **kwargs):
        plain_pictures.begin_batch(p)

    def process_before_every_sampling(self, p, *args, **kwargs):
        if job.is_wanted(p, args):
            job.install(p, args)

    def postprocess_batch(self, p, *args, **kwargs):
        if job.is_wanted(p, args):
            job.finish(p)

    def postprocess_batch_list(self, p, pp, *args, **kwargs):
        refusal.drop(p, pp.images)

    def postprocess_image(self, p, pp, *args):
        pictures.draw(p, pp.image)

    def postprocess(self, p, processed, *args):
        job.end(p, processed)
        refusal.explain(p, processed)


script_callbacks.on_ui_settings(options.add)
script_callbacks.on_app_started(options.add_without_page)
script_callbacks.on_app_started(routes.add)
