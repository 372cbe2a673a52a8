"""Prompts without the WebUI's syntax, and the automatic finder."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyndm_ext.prompt.finder import automatic_objects, reads_as_english
from asyndm_ext.prompt.objects import parse_objects
from asyndm_ext.prompt.syntax import plain_text

# --- plain_text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", ""),
        ("a cat", "a cat"),
        ("a (cat:1.3) on a ((mat)), [dog]", "a cat on a mat, dog"),
        ("(a (red:1.2) cat:0.9)", "a red cat"),
        ("(cat: .5) and (dog:1.)", "cat and dog"),
        (r"saber \(fate\), sword", "saber fate, sword"),
        ("cat <lora:fluffy_v1:0.8>, dog<hypernet:x:1>", "cat, dog"),
        ("a cat BREAK a dog", "a cat, a dog"),
        ("(cat BREAK dog:1.2)", "cat, dog"),
        ("a cat AND a dog", "a cat, a dog"),
        ("a cat :1.2 AND a dog:0.8", "a cat, a dog"),
        ("a BAND and a BREAKFAST", "a BAND and a BREAKFAST"),
        ("a [cat:dog:0.5] sits", "a cat, dog sits"),
        ("a [cat:dog:10], [hat::0.3], [:tie:0.2]", "a cat, dog, hat, tie"),
        ("a [cat|dog] sits", "a cat, dog sits"),
        ("[(red:1.2) cat:[blue|green] dog:0.4]", "red cat, blue, green dog"),
        ("long_hair, {hat|cap}", "long hair, hat, cap"),
        ("A cat. A dog! f/1.8; U.S. flag", "A cat, A dog, f, 1.8, U.S, flag"),
        ("the cat's t-shirt, 'quoted'", "the cat's t-shirt, quoted"),
        ("cat -- dog — bird", "cat, dog, bird"),
        ("(unclosed [brackets <3 :", "unclosed brackets 3"),
        ("🐱 cat 🎩", "cat"),
    ],
)
def test_plain_text(prompt, expected):
    assert plain_text(prompt) == expected


# --- automatic_objects ----------------------------------------------------------------------------------------------

SENTENCES = {
    # determiners, adjectives, prepositions
    "a red circle and a blue square": "circle square",
    "a white star next to a red square on a gray background": "star square",
    "A red fox jumping over a wooden fence": "fox fence",
    "a black and white cat sleeping on a pile of books": "cat books",
    "a very tall and thin building": "building",
    "a yellow school bus parked next to a green traffic light": "bus light",
    "a chair to the left of a sofa": "chair sofa",
    "two baseball caps to the left of three oranges": "caps oranges",
    "3 apples and 2 pears": "apples pears",
    "a lighthouse on top of a cliff overlooking a harbour": "lighthouse cliff harbour",
    "A cake with strawberries on top": "cake strawberries",
    "an orange cat and an orange": "cat orange",
    "a woman in red holding a cup of coffee": "woman cup coffee",
    "a girl without shoes walking through the rain": "girl",
    "the old man's dog chases the cat": "dog cat",
    "the queen’s crown on a velvet cushion": "crown cushion",
    # participles: before the noun, after it, within a compound
    "a snow covered mountain behind a small cabin": "mountain cabin",
    "an avocado shaped armchair": "armchair",
    "a stuffed animal sits in a chair": "animal chair",
    "a plate topped with broccoli and meat": "plate broccoli meat",
    "a fire hydrant painted red, white and blue": "hydrant",
    "a dog named Rex wearing sunglasses": "dog sunglasses",
    "a statue made of marble in a garden": "statue garden",
    # verbs
    "three zebras graze in a field": "zebras",
    "a bird that is sitting on a branch": "bird branch",
    "The cat is happy": "cat",
    "several sail boats that are docked near a bridge": "boats bridge",
    "two children building a sandcastle on the beach": "children sandcastle",
    "a park bench stands near a pond": "bench pond",
    "people sit at tables under umbrellas": "people tables umbrellas",
    "a boy throws a ball to his friend": "boy ball friend",
    "a knight in shining armor fights a dragon": "knight armor dragon",
    "a man in a suit and tie talks on a cell phone": "man suit tie phone",
    "A pipe by which workers can tap into the well": "pipe workers well",
    "a car that looks like a shoe": "car shoe",
    "a woman holds an umbrella while it rains": "woman umbrella",
    # bare nouns
    "man washing dishes in the kitchen": "man dishes kitchen",
    "woman eating noodles with chopsticks": "woman noodles chopsticks",
    "spiderman fighting batman on a rooftop": "spiderman batman rooftop",
    "Horses running across fields": "Horses",
    "Eating pizza": "pizza",
    "elephant": "elephant",
    # quantities and introductions
    "a group of people standing around a table with food": "people table food",
    "a herd of sheep grazing on a lush green hillside": "sheep hillside",
    "portrait of a woman with a pearl earring, oil painting, by Johannes Vermeer": "woman earring",
    "an old photo of my grandmother in a silver frame": "grandmother frame",
    "an image of a cat and an image of a dog": "cat dog",
    "a close-up of a bee on a yellow flower": "bee flower",
    "a man holding a camera": "man camera",
    "a cowboy and his horse at sunset, golden hour": "cowboy horse",
    # style chunks and artists
    "a wizard casting a spell, dramatic lighting, art by greg rutkowski and alphonse mucha": "wizard spell",
    "a corgi in a spaceship, in the style of Van Gogh": "corgi spaceship",
    "a castle, by Ivan Aivazovsky, Caspar David Friedrich": "castle",
    "a painting by Edward Hopper of a bicycle": "bicycle",
    "photo of a vintage car parked in front of a brick house, 35mm, bokeh": "car house",
    "isometric tiny room with a bed, desk and computer, low poly, in blender": "room bed desk computer",
}

TAG_LISTS = {
    "1girl, long hair, red dress, sitting": "1girl hair dress",
    "masterpiece, best quality, 1girl, solo, blue eyes, school uniform, looking at viewer, outdoors, smile": (
        "1girl eyes uniform"
    ),
    "hatsune_miku, twintails, aqua_hair, green_necktie, simple_background, white_background": (
        "miku twintails hair necktie"
    ),
    "2girls, hug, black hair, kimono, holding umbrella, from behind": "2girls hair kimono umbrella",
    "no humans, scenery, house, tree, cloud": "house tree cloud",
    "dragon, castle, knight fighting, epic, 8k, highly detailed, trending on artstation": "dragon castle knight",
    "young woman, freckles, green sweater, forest background, depth of field, 85mm lens": "woman freckles sweater",
    "cute kitten, soft light, fluffy fur, big eyes, digital art, studio lighting, 4k": "kitten fur eyes",
    "mountain landscape with a river, forest, wide angle": "river forest",
    "masterpiece, best quality, highly detailed, 4k": "",
}

SYNTAX = {
    "(masterpiece:1.2), ((1boy)), [dog:cat:0.5], <lora:foo:0.8> holding sword BREAK hut": "1boy dog cat sword hut",
    "a (fluffy cat:1.3) on a [sofa|bed]": "cat sofa bed",
    r"saber \(fate\), sword": "saber sword",
    "cat AND dog :0.8": "cat dog",
    "cats, a Cat, CAT": "cats Cat",
    "": "",
}


@pytest.mark.parametrize(("prompt", "expected"), [*SENTENCES.items(), *TAG_LISTS.items(), *SYNTAX.items()])
def test_automatic_objects(prompt, expected):
    assert automatic_objects(prompt) == expected.split()


NAMES = {
    "Barack Obama in New York": ["Barack Obama"],
    "the Mona Lisa": ["Mona Lisa"],
    "Mount Fuji": ["Mount Fuji"],
    "doctor who": ["doctor who"],
    "Statue of Liberty": ["Statue of Liberty"],
    "Statue of Zeus": ["Zeus"],
    "a portrait of Queen Elizabeth II wearing a crown": ["Queen Elizabeth II", "crown"],
    "Spider-Man and Iron Man on the Eiffel Tower": ["Spider-Man", "Iron Man", "Eiffel Tower"],
    "Darth Vader playing with raccoon in Mars during sunset": ["Darth Vader", "raccoon"],
    "Donald Trump riding a bike in front of the White House": ["Donald Trump", "bike", "White House"],
    "a white house": ["house"],
    "Harry Potter and the Goblet of Fire": ["Harry Potter", "Goblet of Fire"],
    "the Leaning Tower of Pisa": ["Leaning Tower of Pisa"],
    "Kermit the Frog and Miss Piggy": ["Kermit the Frog", "Miss Piggy"],
    "Will Smith eating spaghetti": ["Will Smith", "spaghetti"],
    "The Beatles crossing Abbey Road": ["Beatles", "Abbey Road"],
    "Captain America's shield": ["shield"],
    "Golden Retriever puppy in Central Park": ["puppy"],
    "Hatsune Miku, twintails": ["Hatsune Miku", "twintails"],
    "Cute Emma Watson in a red dress": ["Emma Watson", "dress"],
    "a man in Paris": ["man"],
    "Emma Watson portrait, soft light": ["Emma Watson"],
    "mona lisa painting": ["mona lisa"],
    "pencil sketch, oil painting": [],
    "a castle by Caspar David Friedrich": ["castle"],
    # Capitals that are no names'.
    "A Red Fox In A Green Field": ["Fox"],
    "Girl in Red Dress": ["Girl", "Dress"],
    "Girl in Kimono": ["Girl", "Kimono"],
    "Long Hair, Blue Eyes, Red Dress": ["Hair", "Eyes", "Dress"],
    "A CAT ON A RED MAT": ["CAT", "MAT"],
    "Bowl of Ramen on a table": ["Bowl", "Ramen", "table"],
    "a cat, Highly Detailed, Digital Illustration, Sharp Focus, Cinematic Lighting": ["cat"],
    "Portrait Photography of an old man": ["man"],
    "a castle, Epic Composition, Hyper Realistic, Unreal Engine 5": ["castle"],
    "8k UHD, Canon EOS, Unreal Engine": ["EOS"],
}


@pytest.mark.parametrize(("prompt", "expected"), NAMES.items())
def test_names_of_several_words(prompt, expected):
    assert automatic_objects(prompt) == expected


FOREIGN = [
    "ein Hund auf einer Wiese",
    "Ein Hund",
    "die Katze sitzt auf dem Dach",
    "un chat noir sur un tapis rouge",
    "une femme",
    "una mujer con sombrero en la playa",
    "el perro y el gato",
    "uma menina com um vestido vermelho",
    "een kat op het dak",
    "кошка на столе",
    "一只猫在桌子上",
    "猫と犬",
    "고양이 한 마리",
    "قطة على الطاولة",
]
ENGLISH = [
    "",
    "8k, 1.2",
    "a cat",
    "leonardo da vinci, vincent van gogh",
    "Las Vegas, Los Angeles, Rio de Janeiro",
    "Ludwig van Beethoven and Vincent van Gogh",
    "café au lait on a table",
    "a tunnel under the Rue de la Paix",
    "sushi (寿司) on a plate",
    "un headquarters in the city",
    "Das Boot",
    "best quality, 1girl, kimono, 猫",
]


@pytest.mark.parametrize("prompt", FOREIGN)
def test_another_language_is_noticed_and_nothing_guessed(prompt):
    assert not reads_as_english(prompt)
    assert automatic_objects(prompt) == []


@pytest.mark.parametrize("prompt", [*ENGLISH, *SENTENCES, *TAG_LISTS, *SYNTAX, *NAMES])
def test_english_is_not_taken_for_another_language(prompt):
    assert reads_as_english(prompt)


def test_nouns_alone_do_not_tell_their_language():
    assert automatic_objects("Hund, Katze") == ["Hund", "Katze"]


def test_the_limit_keeps_the_first_objects():
    prompt = ", ".join(f"a thing{number}" for number in range(20))
    assert automatic_objects(prompt) == [f"thing{number}" for number in range(8)]
    assert automatic_objects(prompt, limit=2) == ["thing0", "thing1"]
    assert automatic_objects(prompt, limit=0) == []


# --- properties -----------------------------------------------------------------------------------------------------

_WORDS = re.findall(
    r"\w+",
    "a the two cat dogs red orange painted running runs stand of in on top next to by Monet with "
    "and that is can no during photo style light BREAK AND",
)
_SIGNS = [
    "'s",
    "’s",
    "-",
    ".",
    ",",
    ":",
    "|",
    "(",
    ")",
    "[",
    "]",
    "<",
    ">",
    "\\(",
    "\\)",
    "\\",
    "{",
    "}",
    "_",
    "1.2",
    ":0.5",
    "<lora:x:1>",
    "1girl",
    "4k",
    "İ",
    "ß",
    "猫",
    "é",
]
_PIECES = _WORDS + _SIGNS
_PROMPTS = st.one_of(
    st.text(),
    st.lists(st.sampled_from(_PIECES)).map(" ".join),
    st.lists(st.sampled_from(_PIECES)).map("".join),
)


@given(_PROMPTS)
def test_objects_stand_in_the_plain_text_as_whole_words(prompt):
    text = plain_text(prompt)
    objects = automatic_objects(prompt)
    assert len(objects) <= 8
    for name in objects:
        assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)


@given(_PROMPTS)
def test_objects_read_back_from_the_infotext(prompt):
    objects = automatic_objects(prompt)
    assert [spec.name for spec in parse_objects(", ".join(objects))] == objects


@given(_PROMPTS)
def test_plain_text_is_idempotent(prompt):
    assert plain_text(plain_text(prompt)) == plain_text(prompt)


@given(_PROMPTS)
def test_plain_text_has_only_words_and_single_commas(prompt):
    text = plain_text(prompt)
    assert not set(text) & set("()[]{}<>|:;!?\\_\n")
    assert text == ", ".join(" ".join(chunk.split()) for chunk in text.split(",") if chunk.strip())
