"""The nouns the model knows: everyday name -> icons (as the families of sprites.py call them) and other names."""

# name: icon [, icon ...] [| synonym, synonym ...]
TABLE = """
cat: cat-face, cat | kitten, kitty
dog: dog-face, dog | puppy
mouse: mouse-face, mouse | mice
rabbit: rabbit-face, rabbit | bunny
fox: fox
bear: bear
panda: panda
tiger: tiger-face, tiger
lion: lion
cow: cow-face, cow
pig: pig-face, pig
frog: frog
monkey: monkey-face, monkey
chicken: chicken, rooster | hen
penguin: penguin
duck: duck
owl: owl
horse: horse-face, horse
unicorn: unicorn
bee: honeybee | honeybee
butterfly: butterfly
ladybug: lady-beetle | ladybird, beetle
spider: spider
turtle: turtle | tortoise
snake: snake
octopus: octopus
crab: crab
fish: fish, tropical-fish
shark: shark
whale: spouting-whale, whale
elephant: elephant
giraffe: giraffe
dinosaur: sauropod, t-rex
dragon: dragon-face, dragon
rose: rose
sunflower: sunflower
tulip: tulip
cactus: cactus
palm tree: palm-tree | palm
tree: deciduous-tree, evergreen-tree
leaf: maple-leaf, leaf-fluttering-in-wind
mushroom: mushroom
sun: sun, sun-with-face
moon: crescent-moon, last-quarter-moon-face
star: star, glowing-star
cloud: cloud
rainbow: rainbow
fire: fire | flame
snowflake: snowflake
snowman: snowman-without-snow, snowman
apple: red-apple, green-apple
banana: banana
lemon: lemon
watermelon: watermelon
grapes: grapes
strawberry: strawberry
cherries: cherries | cherry
pineapple: pineapple
avocado: avocado
carrot: carrot
cheese: cheese-wedge
hamburger: hamburger | burger
french fries: french-fries | fries, chips
pizza: pizza
ice cream: soft-ice-cream, ice-cream
donut: doughnut | doughnut
cookie: cookie | biscuit
cake: birthday-cake, shortcake
cup: hot-beverage, teacup-without-handle | coffee, tea
car: automobile, sport-utility-vehicle | automobile
bus: bus, oncoming-bus
tractor: tractor
bicycle: bicycle | bike
train: locomotive, bullet-train | locomotive
airplane: airplane, small-airplane | plane
helicopter: helicopter
rocket: rocket | spaceship
boat: sailboat, speedboat | sailboat
house: house, house-with-garden | home
castle: castle, japanese-castle
football: soccer-ball | soccer ball
basketball: basketball
guitar: guitar
drum: drum
balloon: balloon
gift: wrapped-gift | present
christmas tree: christmas-tree
teddy bear: teddy-bear
heart: red-heart, sparkling-heart | love
crown: crown
hat: top-hat, womans-hat | top hat
umbrella: umbrella, umbrella-on-ground
key: key, old-key
book: blue-book, open-book
clock: alarm-clock, mantelpiece-clock | alarm clock
light bulb: light-bulb | lamp
bell: bell
anchor: anchor
pencil: pencil
robot: robot
alien: alien, alien-monster
ghost: ghost
skull: skull
smiley: grinning-face, smiling-face-with-smiling-eyes | smiley face, smile, happy face
"""

NOUNS, ICONS, SYNONYMS = [], {}, {}
for _line in TABLE.strip().splitlines():
    _name, _rest = _line.split(": ")
    _icons, _, _syn = _rest.partition(" | ")
    NOUNS.append(_name)
    ICONS[_name] = [i.strip() for i in _icons.split(",")]
    SYNONYMS[_name] = [s.strip() for s in _syn.split(",") if s.strip()]

# Mass nouns and plurals that take no article.
NO_ARTICLE = {"grapes", "cherries", "french fries", "cheese", "fire", "pizza", "love", "fries", "chips", "coffee",
              "tea", "mice"}
# Nouns that are counted ("two cats") with another plural than plural() finds, and such that are not counted at all.
PLURALS = {"mouse": "mice", "fish": "fish", "leaf": "leaves", "snowman": "snowmen"}
UNCOUNTED = NO_ARTICLE | {"sun", "moon", "rainbow"}

COLOURS = {
    "red": (226, 45, 45), "orange": (250, 135, 10), "yellow": (252, 215, 50), "green": (60, 165, 70),
    "blue": (30, 125, 230), "light blue": (150, 208, 252), "purple": (135, 50, 175), "pink": (245, 145, 190),
    "black": (22, 22, 26), "gray": (150, 150, 150), "brown": (122, 80, 60), "white": (255, 255, 255),
}
TINTS = [c for c in COLOURS if c != "white"]

SCENES = ["on the grass", "on the beach", "in the snow", "in the sea", "in the sky", "at sunset", "at night"]


def plural(noun):
    """mice, foxes, butterflies, cats."""
    if noun in PLURALS:
        return PLURALS[noun]
    if noun.endswith(("s", "x", "ch")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def article(words):
    """a cat, an owl, french fries, a blue owl."""
    noun = next((n for n in NO_ARTICLE if words == n or words.endswith(" " + n)), None)
    if noun:
        return words
    first = words.split()[0]
    an = first[0] in "aeio" or first in ("umbrella", "ugly")
    return ("an " if an else "a ") + words
