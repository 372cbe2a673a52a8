"""Word lists of :mod:`asyndm_ext.prompt.finder`: closed classes in full, open classes by their most common members.

Everything is lower case. A word in no list counts as a noun unless its ending says otherwise, so the lists hold what
is *not* a thing to draw, and the nouns whose ending would mislead.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(phrase.split()) for phrase in text.replace("\n", ",").split(",") if phrase.strip())


# --- closed classes -------------------------------------------------------------------------------------------------

DETERMINERS = _words("""
a an the this that these those some any many much several few each every both all another either neither other
more most such various numerous multiple enough half my your his her its their our whose one two three four five
six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty
thirty forty fifty sixty seventy eighty ninety hundred thousand million single double
""")

SINGULAR_DETERMINERS = _words("a an the this that each every another my your his her its their our one single")

NEGATIONS = _words("no without never not minus except")

PREPOSITIONS = _words("""
in on at of with to from by for into onto upon over under above below beneath underneath neath beside besides
between among amongst behind near against along alongside across around through throughout during before after
until till since toward towards inside outside within off out up down about atop amid past beyond via per aboard
astride like as than despite featuring including containing showing depicting portraying wearing opposite versus
vs
""")

CONJUNCTIONS = _words("and or but nor while when where if because so yet then whilst plus &")

# Auxiliaries, modals and pronouns: never part of a noun phrase.
AUXILIARIES = _words("""
is are was were be been being am has have had having do does did done will would could should shall may might
must cannot can't isn't aren't doesn't don't
""")
MODALS = _words("can will would could should shall may might must cannot can't")
COPULAS = _words("is are was were be being am looks look seems seem appears becomes feels looking becoming feeling")
PRONOUNS = _words("""
i you he she it we they me him us them himself herself itself themselves myself yourself who whom which what
there here everyone everything nothing none it's he's she's that's there's mine yours hers theirs ours
""")
SUBJECTS = _words("i you he she it we they who")

ADVERBS = _words("""
very really quite too rather extremely super ultra hyper insanely so just only also even still already always
often again away together apart alone almost nearly maybe perhaps else ever once twice forward forwards backward
backwards upward upwards downward sideways outdoors indoors upstairs downstairs nearby everywhere somewhere
anywhere overhead ahead abroad aside aloft now today tonight tomorrow later soon how why more less
""")

# --- nouns that are not objects -------------------------------------------------------------------------------------

# "rows of boats": the boats are drawn, not the rows. Only before "of".
QUANTITIES = _words("""
row rows group groups bunch bunches pair pairs couple couples pile piles stack stacks lot lots number numbers
set sets piece pieces slice slices bit bits herd herds flock flocks pack packs crowd crowds collection
collections variety array series swarm swarms school line lines cluster clusters heap heaps mass masses load
loads plenty dozen dozens hundreds thousands hundred thousand handful kind kinds type types sort sorts species
assortment selection range amount amounts majority rest part parts half portion top bottom side sides edge edges
corner corners end ends middle center centre front back left right rear inside outside interior exterior surface
outline form shape version close-up closeup
""")

# "a photo of a cat": not objects when they introduce the picture or stand alone as a style.
MEDIA = _words("""
photo photos photograph photographs photography picture pictures image images painting paintings illustration
illustrations drawing drawings sketch sketches render renders rendering portrait portraits portraiture selfie
snapshot shot shots screenshot artwork print poster emoji icon logo cartoon caricature depiction photocopy scan
sculpture statue figurine view views scene scenes close-up closeup macro watercolor watercolour engraving
woodcut etching mosaic collage mural fresco graffiti tapestry diagram infographic comic manga anime wallpaper
cover still footage film polaroid silhouette visualization example design concept vision study sticker clipart
headshot art landscape scenery
""")

# What turns a medium into an introduction: "a yearbook photo with animals".
MEDIA_LINKS = _words("of by with taken showing depicting featuring portraying where")

# Never the head of an object: quality and style tags, camera talk, places within the picture, times, abstract words.
STYLE_WORDS = _words("""
masterpiece quality qualities resolution definition detail details lighting style styles aesthetic aesthetics
artstation deviantart pixiv cgsociety behance flickr pinterest unsplash shutterstock absurdres highres lowres
hires uhd hd hdr fhd raw cgi vfx bokeh dof focus exposure contrast sharpness saturation blur grain iso fov pov
composition perspective symmetry texture textures shading shader shadows raytracing octane unreal redshift vray
render rendering rtx wlop artgerm rutkowski mucha ghibli pixar disney photorealism realism hyperrealism
surrealism impressionism cubism minimalism expressionism minimalist impressionist surrealist baroque rococo
renaissance vibe vibes mood atmosphere ambience ambiance theme tone tones color colors colour colours palette
hue hues trending viewer solo score rating nsfw sfw source best upscaled upscale kodak portra nikon canon sony
fujifilm leica dslr bg cinematography photoshoot background backgrounds foreground distance distances middle
center centre left right top bottom front back side sides rear midground view angle direction position pose way
manner place kind sort type other others day night days nights morning evening afternoon noon midday midnight
dusk dawn twilight daytime nighttime weather season winter summer autumn year years month week hour hours minute
moment time times century era age today monday tuesday wednesday thursday friday saturday sunday january
february april june july august september october november december daylight moonlight candlelight sunlight
backlight backlighting
""")

# Times and lights that can be the subject, but not after a preposition ("during sunset").
TIMES = _words("sunset sunrise light lights rain fog mist haze darkness shadow spring fall storm")

# Backdrop rather than thing ("stuff"): dropped after a preposition when the prompt names something else before it.
SCENERY = _words("""
sky skies street streets road roads highway forest forests woods jungle field fields meadow grass lawn ground
floor beach shore ocean sea water underwater sand desert snow air space world city town village countryside
landscape wilderness nature room environment universe horizon park
""")

# Things elsewhere, but as a whole chunk of a tag list they describe a face or the picture ("85mm lens").
LONE_TAGS = _words("""
lens camera engine award awards artist artists safe vignette
smile smiles blush blushes grin frown laugh smirk stare gaze wink pout glare
""")

# "made of wood": the material of the thing before it.
MATERIALS = _words("""
wood metal glass stone gold silver bronze copper iron steel plastic paper cardboard leather wool cotton silk
velvet clay ceramic porcelain marble concrete brick bricks crystal ice felt fabric cloth denim lego legos rubber
straw hay
""")
MADE = _words("made carved built crafted constructed sculpted formed composed woven knitted fashioned texture")

# "a dog named Rex": what follows is a name.
NAMING = _words("named called titled labeled labelled captioned entitled nicknamed")

# --- adjectives -----------------------------------------------------------------------------------------------------

ADJECTIVES = _words("""
red blue green yellow purple pink white black brown gray grey golden beige cyan magenta turquoise teal maroon
crimson scarlet indigo lavender ivory navy tan blonde blond brunette auburn colorful colourful multicolored
multicolor monochrome dark bright pale vivid pastel neon transparent translucent big large huge giant gigantic
enormous massive small little tiny mini miniature tall short long wide narrow thick thin fat slim skinny chubby
heavy deep shallow high low flat round circular triangular rectangular curved straight sharp soft hard smooth
rough old young new ancient modern vintage retro antique futuristic medieval victorian traditional contemporary
historic middle-aged elderly fresh dry wet clean dirty dusty rusty muddy sandy rocky snowy icy rainy sunny
cloudy foggy misty stormy windy hot cold warm cool frozen hungry thirsty sleepy tired beautiful pretty cute
adorable gorgeous handsome lovely ugly elegant fancy simple plain complex intricate ornate detailed delicate
gentle calm quiet loud serene peaceful cozy cosy happy sad angry mad scary creepy spooky funny silly goofy crazy
weird strange odd mysterious magical mystical epic dramatic majestic powerful strong weak fast slow lazy busy
crowded empty full open closed shut shiny glossy matte fluffy furry fuzzy hairy scaly spiky curly wavy messy
tidy naked nude bald bare sexy voluptuous muscular curvy petite busty feminine masculine androgynous wooden
woolen metallic leathery glassy stony silvery silken earthen lone single double solitary same different similar
identical separate whole entire good bad great nice fine perfect amazing awesome stunning incredible fantastic
wonderful excellent superb best better worst worse favorite famous popular rich poor cheap expensive rare common
special normal natural wild domestic tropical urban rural royal noble holy sacred evil demonic angelic
american british english french german italian spanish russian chinese japanese korean indian african asian
european mexican egyptian roman greek nordic arabic turkish persian dutch irish scottish blurry realistic
photorealistic hyperrealistic surreal abstract cinematic atmospheric volumetric ambient digital official
professional ultra-realistic symmetrical asymmetric minimal stylized graphic visual real fake live alive dead
asleep awake ready available possible first second third fourth fifth last next previous upper lower inner outer
main major minor close far near-by raw ripe tasty delicious spicy sweet sour salty crispy juicy creamy fried
cooked baked grilled burnt electric mechanical robotic cybernetic cyberpunk steampunk gothic kawaii chibi noir
mr mrs ms dr st sir
""")

# Colours that are things too: an object when a determiner precedes and nothing follows ("a bowl and an orange").
COLOUR_NOUNS = _words("orange violet")

ADJECTIVE_ENDINGS = ("ous", "ful", "less", "ish", "able", "ible", "esque", "istic", "ical", "like")
NOT_ADJECTIVES = _words("""
fish dish radish alike parish jellyfish catfish goldfish swordfish starfish crayfish rubbish polish table tables
vegetable cable stable bible constable turntable timetable handful armful mouthful bus
""")

# --- words whose ending misleads ------------------------------------------------------------------------------------

ING_NOUNS = _words("""
thing things king ring rings wing wings string strings spring building ceiling clothing wedding pudding railing
awning viking duckling seedling sibling sling swing earring earrings herring lightning evening morning dressing
stuffing frosting icing topping toppings filling flooring siding stocking stockings crossing landing clearing
sting bing bling something anything everything nothing dumpling dumplings gosling darling sapling sterling
underling starling wellbeing being beijing piercing piercings scaffolding bedding tubing
""")
ED_NOUNS = _words("""
bed beds seed weed sled shed feed reed steed breed moped biped hundred watershed seabed flatbed sunbed speed
creed need greed bobsled seaweed tweed deed thoroughbred ned ted fred ed zed mohammed
""")
LY_NOUNS = _words("""
fly family butterfly dragonfly firefly jelly belly lily bully assembly ally italy holly molly billy sally emily
kelly supply monopoly gully trolly filly dolly rally bentley anomaly july reply ply tally
""")

# --- verbs ----------------------------------------------------------------------------------------------------------

# Base forms that are hardly ever nouns: with or without -s they end a noun phrase wherever they stand.
SURE_VERBS = _words("""
eat sit hang wear hold carry bring take give make see hear read write sing throw catch pull push lean lie lay
grow wait become appear seem contain include enjoy explore depict feature show emerge arrive enter leave go come
get put keep find lose follow chase devour surround illuminate cover approach prepare swim sniff lick celebrate
protect gather perform pretend try want learn teach speak tell say ask hug snuggle cuddle relax grab consume
resemble roam wander gallop soar hover descend ascend happen collide nibble munch gnaw peer sat stood ran ate
wore rode flew went came swam drank slept lain gave took saw kept sang fought drove lies lying
""")

# Nouns as well as verbs: decided by number agreement and by what follows.
AMBIGUOUS_VERBS = _words("""
stand walk run ride drive park fly play watch cook drink cut jump climb swim rest sleep stare gaze look smile
laugh cry dance fight attack battle race travel move turn point face float drift sail surf ski skate kick hit
bite wash clean brush paint draw work study use touch open close fall rise shine glow burn pour fill fish hunt
graze feed pose perch stretch reach roll slide crawl hide cross pass wave kiss talk call shop visit lead guard
land can meet share swing serve pet love stick rock line stack display dock guide help mix step stop
""")

# Irregular pasts and participles: after a noun they end the phrase, before one they describe it.
PARTICIPLES = _words("""
broken fallen hidden worn torn driven ridden shown seen taken drawn woven written given eaten grown thrown cut
put made built hung lit led laid bound caught sunk spread bent stuck gone drunk held spilt burnt split swept
bitten beaten chosen blown flown frozen molten shaken stolen sworn forgotten upturned dressed found lost sold
told fed clad strewn sewn hewn tied lined
""")

IRREGULAR_PLURALS = _words("""
people men women children sheep fish deer geese mice teeth feet oxen cattle police kids moose swine policemen
firemen fishermen snowmen salmon
""")

# --- several words --------------------------------------------------------------------------------------------------

PREPOSITION_PHRASES = _phrases("""
next to, on top of, in front of, close to, in between, out of, on the left of, on the right of, to the left of
to the right of, on the left side of, on the right side of, in the middle of, in the center of, in the centre of
at the top of, at the bottom of, at the end of, at the edge of, on the side of, on the edge of, by the side of
under neath, in back of, in the back of, at the back of, on the back of, on the top of, inside of, outside of
full of, such as, near to, due to, because of, instead of, along with, as well as, in the shape of
in the form of, in the process of, in terms of, far from, away from, on either side of, on each side of
on both sides of, at the side of, for sale, to the side of, at the base of, at the foot of, in the corner of
on board, up to, on top, in front, in back, as if, based on
""")

# Introductions and meta talk of several words; none of them draws a thing.
STYLE_PHRASES = _phrases("""
in blender, in photoshop
depth of field, looking at viewer, looking at the viewer, looking at camera, looking at the camera
trending on artstation, state of the art, point of view, rule of thirds, work of art, unreal engine
octane render, golden hour, blue hour, film grain, upper body, lower body, full body, half body, cowboy shot
wide angle, wide shot, long exposure, from above, from behind, from below, from side, from the side
award winning, digital art, concept art, pixel art, fan art, line art, vector art, pop art, fantasy art, key art
cover art, clip art, anime art, character art, art nouveau, art deco, soft light, volumetric light
natural light, studio light, rim light, cinematic light, dramatic light, ambient light, warm light
morning light, god rays, light rays, ray tracing, studio ghibli, character design, oil on canvas
national geographic, film still, movie still, low poly, close up, close ups, black and white, slow motion
each other, one another, eye level, character sheet, reference sheet, model sheet, product shot, text that says
line drawing, street photography, stock photo, matte painting, digital painting, oil painting
watercolor painting, 3d render, high contrast, low contrast, fine art, fine details, still life
""")

ARTIST_PHRASES = _phrases("in the style of, in style of, style of, inspired by, art by, artwork by, work by")

# --- names of several words -----------------------------------------------------------------------------------------

# Names that grammar would take apart ("statue" is a medium, "who" a pronoun, "white" a colour). Others are known by
# their capitals.
NAMES = _phrases("""
statue of liberty, mona lisa, doctor who, snow white, game of thrones, lord of the rings, star wars, star trek
iron man, ant man, big ben, mount fuji, mount everest, mount rushmore, grand canyon, times square
taj mahal, eiffel tower, golden gate bridge, brooklyn bridge, london bridge, great wall of china, arc de triomphe
new york, los angeles, san francisco, las vegas, hong kong, new orleans, rio de janeiro, santa claus, santa monica
jack o lantern, jar jar binks, winnie the pooh, alice in wonderland, puss in boots, thomas the tank engine
attila the hun, alexander the great, conan the barbarian, leonardo da vinci, joan of arc, helen of troy
""")

# Auxiliaries that are first names where a capitalised name follows: "Will Smith".
FIRST_NAMES = _words("will may")

# --- other languages ------------------------------------------------------------------------------------------------

# Little words that English does not have, of the languages that prompts are written in; no word that stands for itself
# in an English prompt ("die", "met", "con").
FOREIGN_WORDS = _words("""
ein eine einen einem einer eines das und auf mit ist sind für vor über unter neben zwischen hinter beim zum zur
nicht oder sitzt steht trägt vom aus
un une et sur avec dans près devant derrière entre chez au aux sont qui assis
una unos unas en y sobre junto está están por para delante detrás debajo
uno sul sulla sulle nel nella nello gli che della dello degli dei delle accanto sono è
uma umas com em não está são dos nas na ao à pela pelo ou atrás
een het aan uit voor naast onder achter tussen zijn zit staat
och på ett är og ved jest się obok
bir ve ile și cu pe és egy
""")

# The same, but found in names too ("leonardo da vinci", "los angeles"): half as sure.
FOREIGN_WORDS_OF_NAMES = _words("""
der dem des le la les du de da di del el los las van von il lo al um con est po med det
""")

# With one of these as its first word a prompt is not English: "ein Hund", "une femme".
FOREIGN_ARTICLES = _words("ein eine einen une una ett")
