"""The words of everyday pictures, for the made-up sentences that the parser is trained on."""

from __future__ import annotations

__all__ = [
    "ADJECTIVES", "COLORS", "MASS", "NOUNS", "VERBS", "gerund", "is_plural", "plural", "present",
]  # fmt: skip

_PEOPLE = """
man woman boy girl guy lady person kid child baby player girl's-friend friend dude fella gal teen
teenager adult worker rider surfer skater skateboarder driver chef cook waiter waitress student
teacher doctor dancer singer artist farmer fisherman sailor pilot passenger customer shopper
policeman officer cop guard cowgirl pitcher hitter catcher batter fielder coach fan spectator
bystander pedestrian runner swimmer biker bicyclist skier snowboarder golfer boxer wrestler
mother father mom dad son daughter brother sister grandma grandpa grandmother grandfather uncle
aunt wife husband bride groom king queen prince princess knight wizard witch ghost angel tourist
businessman businesswoman host guest speaker photographer painter barber butcher baker clerk
cashier model actor actress hero twin toddler infant male female blonde brunette redhead
"""
_ANIMALS = """
dog cat horse cow sheep goat pig bird duck goose chicken hen rooster turkey elephant giraffe zebra
bear lion tiger monkey gorilla ape deer moose bison buffalo donkey mule llama wolf fox rabbit
bunny hamster mouse rat turtle frog snake fish shark whale dolphin seal crab lobster shrimp snail
butterfly spider ant fly bug insect puppy kitten lamb cub bull calf pigeon crow eagle hawk gull
toucan swallow beaver hedgehog koala panda rhino alligator crocodile starfish poodle bulldog
terrier beagle dachshund chihuahua husky labrador collie tabby mare stallion colt dragon dinosaur
"""
_CLOTHES = """
shirt t-shirt tshirt jacket coat sweater hoodie vest dress skirt pants jeans shorts sock shoe
sneaker boot sandal heel hat cap beanie helmet glove scarf tie bowtie belt suit uniform jersey
blouse robe apron gown cape mask glasses sunglasses watch necklace bracelet earring ring purse
backpack handbag bag wallet umbrella crown wig veil pajamas swimsuit bikini trunks costume outfit
collar sleeve hood button zipper strap wetsuit cardigan sweatshirt tank-top shawl slipper
"""
_BODY = """
head face hair eye ear nose mouth lip tooth tongue chin cheek neck shoulder arm hand finger thumb
fist chest belly stomach back hip leg knee foot toe paw tail wing beak horn mane fur feather trunk
hoof snout spot stripe beard ponytail bun braid bangs tattoo muscle forehead hind-leg rear butt
"""
_FURNITURE = """
chair table couch sofa bed desk bench stool shelf bookshelf cabinet drawer dresser lamp rug carpet
curtain pillow blanket mirror clock door window wall floor ceiling stair staircase fireplace
counter sink toilet bathtub shower faucet tub refrigerator fridge freezer oven stove microwave
toaster dishwasher washer dryer fan heater cushion mattress sheet crib cradle armchair footstool
nightstand wardrobe closet hanger hook rack railing banister tile light bulb lampshade chandelier
blind towel soap candle frame poster painting picture photo photograph image map calendar
"""
_THINGS = """
book magazine notebook letter envelope pen pencil crayon marker paper box crate basket bucket
barrel can jar bottle cup mug glass bowl plate dish tray saucer platter fork knife spoon spatula
pan pot kettle pitcher teacup napkin straw lid toothbrush toothpaste comb brush razor bandage
phone cellphone computer laptop keyboard mouse monitor screen television tv remote controller
camera tripod speaker radio headphone microphone cord cable wire plug charger battery printer
ball bat racket racquet net goal hoop frisbee kite skateboard surfboard snowboard ski sled skate
paddle oar raft rope chain ladder hammer saw drill screwdriver wrench shovel rake broom mop hose
tool nail screw key lock toy doll puzzle teddy-bear block card dice balloon flag banner sign
trophy medal coin guitar piano violin flute trumpet drumstick bell whistle vase pot statue figurine
stick pole post pipe board plank brick stone rock pebble tent bag suitcase luggage trunk sack tag
label sticker stamp bow ribbon bead string thread needle scissors hairdryer stapler tape globe
cross heart star square circle triangle line dot arrow letter number word object item thing one
"""
_VEHICLES = """
car truck bus van taxi bike bicycle motorcycle motorbike scooter train tram subway plane airplane
jet helicopter boat ship sailboat canoe-paddle carriage wagon cart trailer tractor bulldozer crane
suv jeep sedan pickup-truck convertible firetruck stroller skateboard wheel tire windshield
headlight taillight bumper hood seat handlebar engine mirror license-plate fender door propeller
cockpit caboose track rail sail mast deck anchor-chain vehicle minibus moped rocket spaceship
"""
_FOOD = """
apple banana orange lemon lime pear peach plum grape strawberry blueberry cherry pineapple melon
watermelon mango kiwi coconut avocado tomato potato carrot onion pepper cucumber mushroom corn
bean pea radish beet squash pizza sandwich burger hamburger hotdog hot-dog taco wrap bun roll
croissant biscuit cookie brownie cake cupcake pie donut doughnut muffin pastry tart egg omelet
steak sausage wing salad noodle fry chip cracker nut pickle olive slice piece chunk bite snack
meal lunch dinner breakfast dessert drink soda beer cocktail-glass smoothie milkshake can topping
"""
_SCENERY = """
street road sidewalk highway bridge tunnel intersection corner curb lane path trail alley driveway
parking-lot garage yard garden lawn field park playground court rink pool lake river stream ocean
sea beach shore coast island hill mountain valley forest wood jungle desert cave sky cloud sun
moon star rainbow storm wave tree bush flower rose daisy sunflower leaf branch trunk log stump
plant vine hedge weed house home building tower skyscraper church temple barn shed cabin cottage
hut apartment store shop market mall restaurant cafe bakery bar kitchen bedroom bathroom room
office school classroom library museum hospital hotel station airport platform terminal dock pier
farm zoo cage pen fence gate porch balcony patio roof awning column statue monument sculpture
hydrant meter stop-sign traffic-light streetlight lamppost billboard town city village country
crowd group line pile stack stand booth stage arena stadium base mound plate home-plate dugout
"""
_PARTS = """
side corner edge end top bottom middle center front back background foreground part half row
picture photo image pic screen frame view scene distance shadow reflection surface shape pattern
design logo game match race show party wedding parade festival trip ride walk run swim jump throw
catch hit kick swing slide climb dance hug kiss smile look stare nap rest meeting job
"""
MASS = """
water milk coffee tea juice wine soup sauce ketchup mustard mayonnaise butter cheese bread toast
rice pasta spaghetti meat beef pork bacon ham fish chicken fruit food lettuce spinach celery
garlic cabbage cauliflower broccoli cream ice snow rain mud dirt sand grass hay straw gravel
concrete metal wood plastic glass leather paper cloth fabric denim silk wool fur hair skin
smoke steam fire traffic furniture luggage clothing jewelry makeup lipstick frosting icing
chocolate sugar salt honey jam jelly cereal yogurt salsa guacamole tofu parsley cilantro graffiti
sunlight light shade darkness air sunshine foam dust equipment baggage money trash garbage
""".split()  # fmt: skip


def _words(*groups: str) -> list[str]:
    listed = " ".join(groups).replace("girl's-friend", "girlfriend").split()
    compounds = {"tank-top", "hind-leg", "canoe-paddle", "anchor-chain", "cocktail-glass"}
    return sorted({w.replace("-", " ") if w != "t-shirt" else w for w in listed} - compounds)


PEOPLE = _words(_PEOPLE)
ANIMALS = _words(_ANIMALS)
CLOTHES = _words(_CLOTHES)
BODY = _words(_BODY)
PARTS = _words(_PARTS)
SCENERY = _words(_SCENERY)
THINGS = _words(_FURNITURE, _THINGS, _VEHICLES, _FOOD)
NOUNS = sorted({*PEOPLE, *ANIMALS, *CLOTHES, *BODY, *PARTS, *SCENERY, *THINGS})
SHAPES = "ball ring moon star heart cross square triangle flower house fish tree".split()
# What the project's own pictures show.
STICKERS = [*"""
dog cat horse sheep cow elephant zebra giraffe bird rabbit duck bear car bus truck train airplane
bicycle boat umbrella chair couch cup clock ball book backpack suitcase handbag hat kite apple
banana pizza cake donut carrot man woman person child baby skier surfer dancer house tree flower
balloon
""".split(), "teddy bear"]  # fmt: skip
# The second noun of "lamp base", "door handle", "puppy face".
COMPONENTS = """
face hand handle wheel tire seat door window roof wing tail head leg arm foot ear eye nose neck
back front side top bottom edge corner cover lid box bag case basket stand holder rack shelf base
frame screen light sign post pole rope string chain strap button pocket engine driver rider owner
cart house nest stop station track book toy shop store shade branch leaf stem seed peel skin slice
pattern print design logo statue costume picture plate bowl cup bottle jar carton glass number
""".split()

COLORS = """
red orange yellow green turquoise blue purple white black brown gray grey pink tan beige gold
silver teal maroon navy violet cream khaki blonde burgundy lavender
""".split()
PATTERNS = "plain striped dotted plaid checkered spotted flowered floral patterned solid".split()
ADJECTIVES = """
big small large little tall short long tiny huge giant wide narrow thin thick fat skinny slim
chubby
heavy round flat curved straight pointy sharp old young older younger new elderly ancient modern
vintage antique wooden metallic stone glass plastic leather furry fluffy hairy fuzzy shaggy woolly
soft hard smooth rough shiny dull bright dark darker light lighter pale colorful dirty clean dusty
muddy messy neat wet dry soggy empty full open closed broken cracked torn rusty damaged whole ripe
rotten fresh raw cooked fried grilled baked toasted melted frozen sliced chopped peeled cut eaten
uneaten folded rolled stacked parked hidden bald bearded blond barefoot shirtless topless smiling
laughing crying sleeping sitting standing running walking flying moving falling hanging growing
happy sad angry sleepy tired bored cute pretty beautiful handsome ugly lovely nice fancy elegant
fake real stuffed wild tame domestic busy quiet crowded lonely single double extra different
similar other same next nearest closest closer farthest furthest biggest smallest tallest shortest
longest largest oldest youngest bigger smaller taller shorter larger lower upper main lone visible
blurry blurred faded hot cold warm sunny cloudy rainy snowy foggy sandy grassy rocky leafy male
female asian african american chinese japanese electric digital sweet
spicy tasty delicious sick injured lit unlit painted decorated covered matching paved
""".split()
SPATIAL = """left right middle center top bottom front back far-left far-right mid-left mid-right
center-left lower-right rear lower upper""".split()
SIDES = "left right".split()
LEVELS = "top bottom upper lower front back rear middle center".split()
ORDINALS = "first second third fourth fifth last next other".split()
NUMBERS = "two three four five six seven eight nine ten 2 3 4 5".split()
MATERIAL_NOUNS = (
    "tennis baseball soccer football basketball coffee wine beer fire traffic street stop \
parking train bus bath kitchen bathroom office computer tv cell garden picnic dining bed window \
door tree flower fruit ice snow water beach ski surf skate police school wedding birthday baby \
dog cat teddy polar brick stone glass metal paper leather straw wool plastic gold chocolate \
cheese chicken tomato apple banana orange potato egg bow toilet trash hand wrist shoulder".split()
)
# verb: may it take an object, may it stand alone
VERBS = {
    "both": """eat drink ride drive hold carry push pull throw catch kick hit cut chop cook stir
    serve wash brush clean paint draw read write watch play pet feed walk lead chase follow climb
    bite chew lick sniff smell taste open close pack load fly sail row steer swing slide pass cross
    approach face leave board surf skate hug kiss dance sing smoke sell fix build pick point text
    photograph film record nurse knit sew dig rake sweep mow pour juggle bat pitch blow stretch""",
    "object": """wear have use touch grab hang place put take bring lift raise lower wave toss flip
    fill cover block drag tie wrap hide show see make enjoy prepare sip inspect examine admire
    pet surround hold carry balance cradle grip clutch squeeze tow shake share adjust display
    decorate contain include feature pose trim bring guard greet visit share polish swallow""",
    "alone": """sit stand lie lay lean rest sleep nap walk run jump swim smile laugh cry yawn talk
    look stare gaze wait kneel crouch squat bend float drift fall grow rise bloom graze perch
    bathe pose gather travel move arrive land crawl roll spin splash dive bark stop stay appear
    emerge ski snowboard jog march pedal camp relax shop work compete practice dine soar glide
    hop trot gallop wander stroll march fight hover circle shine sparkle burn melt dry""",
}  # fmt: skip
STATES = """dressed covered filled parked seated surrounded topped stacked tied attached made
located decorated cut loaded lined painted painted stuffed wrapped plugged mounted displayed placed
pictured turned lit hung folded spread set left held pulled towed served cropped hidden""".split()

_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet",
    "tooth": "teeth", "goose": "geese", "mouse": "mice", "sheep": "sheep", "deer": "deer",
    "fish": "fish", "moose": "moose", "bison": "bison", "shrimp": "shrimp", "leaf": "leaves",
    "knife": "knives", "wolf": "wolves", "calf": "calves", "half": "halves", "shelf": "shelves",
    "loaf": "loaves", "wife": "wives", "dice": "dice", "photo": "photos", "stomach": "stomachs",
    "hoof": "hooves",
}  # fmt: skip
_PARTICIPLES = {
    "lie": "lying", "tie": "tying", "die": "dying", "ski": "skiing", "see": "seeing",
    "bathe": "bathing", "canoe": "canoeing",
}  # fmt: skip


def is_plural(word: str) -> bool:
    """Return whether a noun's form is that of several things.

    >>> is_plural("dogs"), is_plural("men"), is_plural("bus"), is_plural("glass")
    (True, True, False, False)
    """
    if word in _PLURALS.values():
        return True
    return word.endswith("s") and not word.endswith(("ss", "us", "is"))


def plural(noun: str) -> str:
    """Return the plural of a noun, of its last word where it has several.

    >>> plural("bookshelf"), plural("stop sign"), plural("cherry"), plural("fireman")
    ('bookshelves', 'stop signs', 'cherries', 'firemen')
    """
    for one, many in _PLURALS.items():
        if noun == one or (len(one) > 2 and noun.endswith(one) and one in {"man", "shelf"}):
            return noun[: len(noun) - len(one)] + many
        if noun.endswith(" " + one):
            return noun[: len(noun) - len(one)] + many
    if noun.endswith("s") and noun[-2:] not in {"ss", "us"}:
        return noun
    if noun.endswith(("s", "x", "ch", "sh", "tomato", "potato", "hero")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeou":
        return noun[:-1] + "ies"
    return noun + "s"


def _doubles(verb: str) -> bool:
    short = len(verb) <= 4 and verb not in {"bow", "row", "mow", "sew", "fix", "open"}
    ends = (
        verb[-1] not in "aeiouwxyrlhk" and verb[-2] in "aeiou" and verb[-3:-2] not in set("aeiou")
    )
    return (short and ends) or verb in {"squat", "grab", "wrap", "grip", "stir", "jog"}


def gerund(verb: str) -> str:
    """Return the -ing form of a verb.

    >>> gerund("ride"), gerund("sit"), gerund("lie"), gerund("eat")
    ('riding', 'sitting', 'lying', 'eating')
    """
    if verb in _PARTICIPLES:
        return _PARTICIPLES[verb]
    if verb.endswith("e"):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if _doubles(verb) else "") + "ing"


def present(verb: str) -> str:
    """Return the third person singular of a verb.

    >>> present("watch"), present("carry"), present("ride")
    ('watches', 'carries', 'rides')
    """
    if verb == "have":
        return "has"
    if verb.endswith(("s", "x", "ch", "sh", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb[:-1] + "ies"
    return verb + "s"
