"""What stops a job. Raised inside the sampling function, the host shows the message in the UI and the API."""


class AsynDMError(RuntimeError):
    """AsynDM cannot do what was asked; the message names what and why."""
