"""What AUTOMATIC1111 and its descendants share: jobs, samplers' functions, prompts, masks. Imports `modules`."""
