"""The kinds of prompts that there are, apart from what draws them: a command's help has to be quick."""

KINDS: dict[str, str] = {
    "unusual": "an animal with a thing that is not its own, half of these never seen together in training; half of the"
    " prompts name a ground that is not its own either",
    "usual": "an animal with its own thing; half of the prompts name its own ground",
    "counted": "two or three animals; half of the prompts name a ground",
    "painted": "an animal with any thing, whose colour is named",
    "placed": "an animal by itself on a ground that is not its own; half of the prompts name the light",
}
