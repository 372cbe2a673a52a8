"""The only modules that know a host. Each turns a host's job into a :class:`asyndm_ext.run.Run`."""
