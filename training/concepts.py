"""The nouns the model knows: everyday name -> (icon in @iconify-json/fluent-emoji-flat, other names)."""

# name: icon [| synonym, synonym ...]
TABLE = """
cat: cat-face | kitten, kitty
dog: dog-face | puppy
mouse: mouse-face | mice
rabbit: rabbit-face | bunny
fox: fox
bear: bear
panda: panda
tiger: tiger-face
lion: lion
cow: cow-face
pig: pig-face
frog: frog
monkey: monkey-face
chicken: chicken | hen
penguin: penguin
duck: duck
owl: owl
horse: horse-face
unicorn: unicorn
bee: honeybee | honeybee
butterfly: butterfly
ladybug: lady-beetle | ladybird, beetle
spider: spider
turtle: turtle | tortoise
snake: snake
octopus: octopus
crab: crab
fish: fish
shark: shark
whale: spouting-whale
elephant: elephant
giraffe: giraffe
dinosaur: sauropod
dragon: dragon-face
rose: rose
sunflower: sunflower
tulip: tulip
cactus: cactus
palm tree: palm-tree | palm
tree: deciduous-tree
leaf: maple-leaf
mushroom: mushroom
sun: sun
moon: crescent-moon
star: star
cloud: cloud
rainbow: rainbow
fire: fire | flame
snowflake: snowflake
snowman: snowman-without-snow
apple: red-apple
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
ice cream: soft-ice-cream
donut: doughnut | doughnut
cookie: cookie | biscuit
cake: birthday-cake
cup: hot-beverage | coffee, tea
car: automobile | automobile
bus: bus
tractor: tractor
bicycle: bicycle | bike
train: locomotive | locomotive
airplane: airplane | plane
helicopter: helicopter
rocket: rocket | spaceship
boat: sailboat | sailboat
house: house | home
castle: castle
football: soccer-ball | soccer ball
basketball: basketball
guitar: guitar
drum: drum
balloon: balloon
gift: wrapped-gift | present
christmas tree: christmas-tree
teddy bear: teddy-bear
heart: red-heart | love
crown: crown
hat: top-hat | top hat
umbrella: umbrella
key: key
book: blue-book
clock: alarm-clock | alarm clock
light bulb: light-bulb | lamp
bell: bell
anchor: anchor
pencil: pencil
robot: robot
alien: alien
ghost: ghost
skull: skull
smiley: grinning-face | smiley face, smile, happy face
"""

NOUNS, ICON, SYNONYMS = [], {}, {}
for _line in TABLE.strip().splitlines():
    _name, _rest = _line.split(": ")
    _icon, _, _syn = _rest.partition(" | ")
    NOUNS.append(_name)
    ICON[_name] = _icon.strip()
    SYNONYMS[_name] = [s.strip() for s in _syn.split(",") if s.strip()]

# Mass nouns and plurals that take no article.
NO_ARTICLE = {"grapes", "cherries", "french fries", "cheese", "fire", "pizza", "love", "fries",
              "chips", "coffee", "tea", "candy", "mice"}

COLOURS = {
    "red": (226, 45, 45), "orange": (250, 135, 10), "yellow": (252, 215, 50), "green": (60, 165, 70),
    "blue": (30, 125, 230), "light blue": (150, 208, 252), "purple": (135, 50, 175), "pink": (245, 145, 190),
    "black": (22, 22, 26), "gray": (150, 150, 150), "brown": (122, 80, 60), "white": (255, 255, 255),
}
TINTS = [c for c in COLOURS if c != "white"]

SCENES = ["on the grass", "on the beach", "in the snow", "in the sea", "in the sky", "at sunset", "at night"]


def article(words):
    """a cat, an owl, french fries, a blue owl."""
    noun = next((n for n in NO_ARTICLE if words == n or words.endswith(" " + n)), None)
    if noun:
        return words
    first = words.split()[0]
    an = first[0] in "aeio" or first in ("umbrella", "ugly")
    return ("an " if an else "a ") + words
