"""The AlwaysOn script: glue between the WebUI's callbacks and the extension's package."""

from modules import script_callbacks, scripts
from modules.ui_components import InputAccordion

from asyndm_ext.hosts.webui import job, options, routes, xyz
from asyndm_ext.ui import infotext, panel


class AsynDM(scripts.Script):
    def title(self):
        return "AsynDM"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        xyz.register(self.title())  # here, because the plot draws its menus after the always-on scripts
        controls, fields = panel.build(InputAccordion, self.elem_id)
        self.infotext_fields = fields
        # By these the buttons below a picture know the controls that go along to another tab.
        self.paste_field_names = [key for control, key in fields if key is not infotext.pasted("mask")]
        return controls

    def process(self, p, *args):
        if job.is_wanted(p, args):
            job.begin(p, args)
        else:
            infotext.forget(p)

    def process_before_every_sampling(self, p, *args, **kwargs):
        if job.is_wanted(p, args):
            job.install(p, args)

    def postprocess_batch(self, p, *args, **kwargs):
        if job.is_wanted(p, args):
            job.finish(p)


script_callbacks.on_ui_settings(options.add)
script_callbacks.on_app_started(routes.add)
