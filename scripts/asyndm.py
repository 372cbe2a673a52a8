"""The AlwaysOn script: glue between the WebUI's callbacks and the extension's package."""

from modules import scripts
from modules.ui_components import InputAccordion

from asyndm_ext.hosts.webui import job
from asyndm_ext.ui import infotext, panel


class AsynDM(scripts.Script):
    def title(self):
        return "AsynDM"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        controls, fields = panel.build(InputAccordion, self.elem_id)
        self.infotext_fields = fields
        self.paste_field_names = [spec.infotext_key for spec in panel.FIELDS]
        return controls

    def process(self, p, *args):
        if job.is_wanted(p, args):
            infotext.record(p, args)
        else:
            infotext.forget(p)

    def process_before_every_sampling(self, p, *args, **kwargs):
        if job.is_wanted(p, args):
            job.install(p, args)

    def postprocess_batch(self, p, *args, **kwargs):
        if job.is_wanted(p, args):
            job.finish(p)
