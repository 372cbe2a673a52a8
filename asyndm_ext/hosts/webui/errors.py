"""What keeps AsynDM from being applied, raised inside the sampling function."""


class AsynDMError(RuntimeError):
    """AsynDM cannot do what was asked; the message names what and why. The host shows it in the UI and the API."""


class NotApplied(Exception):
    """The pass can be sampled, but not with AsynDM: it goes on without, and the infotext and the UI say so.

    Raised before or in the midst of a pass, which is begun anew then; the message is the reason, "the sampler 'X' ...".
    """
