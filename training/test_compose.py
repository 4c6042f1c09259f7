"""Captions and layouts say and show what the spec says.

usage: python -m unittest training/test_compose.py     no weights and no sprites needed
"""
import json
import os
import sys
import tempfile
import unittest

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from compose import _GROUNDS, KINDS, ZH, Composer, Spec, caption, caption_zh, random_layout, random_spec
from concepts import COLOURS, NOUNS, SCENES, plural

PLAIN = [
    (Spec((("apple", "red"),)), "a red apple", "一个红色的苹果"),
    (Spec((("cat", None),), "blue"), "a cat on a blue background", "蓝色背景上的一只猫"),
    (Spec((("cat", None),), "orange"), "a cat on an orange background", "橙色背景上的一只猫"),
    (Spec((("rocket", None),), "at night"), "a rocket at night", "夜里的一枚火箭"),
    (Spec((("owl", "orange"),)), "an orange owl", "一只橙色的猫头鹰"),
    (Spec((("cat", None), ("dog", None))), "a cat and a dog", "一只猫和一只狗"),
    (Spec((("mouse", "blue"),) * 2), "two blue mice", "两只蓝色的老鼠"),
    (Spec((("butterfly", None),) * 3, "green"), "three butterflies on a green background", "绿色背景上的三只蝴蝶"),
    (Spec((("grapes", "green"),)), "green grapes", "一串绿色的葡萄"),
    (Spec((("unicorn", None),)), "a unicorn", "一只独角兽"),
]


class Captions(unittest.TestCase):
    def test_plain_captions(self):
        for spec, english, chinese in PLAIN:
            rng = np.random.default_rng(0)
            self.assertEqual(caption(rng, spec, vary=False), english)
            self.assertEqual(caption_zh(rng, spec, vary=False), chinese)

    def test_lexicon_is_whole_and_tells_everything_apart(self):
        self.assertEqual(list(ZH["nouns"]), NOUNS)
        self.assertEqual(list(ZH["colours"]), list(COLOURS))
        self.assertEqual(list(ZH["scenes"]), SCENES)
        names = [n for entry in ZH["nouns"].values() for n in entry["names"]]
        self.assertEqual(len(names), len(set(names)))

    def test_varied_captions_name_what_is_there(self):
        rng = np.random.default_rng(1)
        for i in range(3000):
            spec = random_spec(rng, KINDS[i % len(KINDS)])
            english, chinese = caption(rng, spec), caption_zh(rng, spec)
            self.assertNotRegex(english.lower(), r"\ba (orange|owl|apple|elephant|octopus|alien|anchor|airplane)\b")
            self.assertNotRegex(english, r"  |\ba two\b")
            for noun, colour in spec.things:
                self.assertTrue(any(name in chinese for name in ZH["nouns"][noun]["names"]), (spec, chinese))
                if spec.counted:
                    self.assertIn(plural(noun), english.lower())
                if colour:
                    self.assertIn(colour, english.lower())
                    self.assertTrue(any(c in chinese for c in ZH["colours"][colour]), (spec, chinese))
            if spec.ground in COLOURS and spec.ground != "white":
                self.assertIn(spec.ground, english)
                self.assertIn("背景", chinese)
            if spec.ground in SCENES:
                self.assertIn(spec.ground, english)


class Layouts(unittest.TestCase):
    def test_things_are_in_the_picture_in_the_caption_s_order(self):
        rng, sprites = np.random.default_rng(2), {n: [3 * i, 3 * i + 1, 3 * i + 2] for i, n in enumerate(NOUNS)}
        for i in range(3000):
            spec = random_spec(rng, KINDS[i % len(KINDS)])
            layout = random_layout(rng, spec, sprites)
            self.assertEqual([NOUNS[t[0] // 3] for t in layout.things], [noun for noun, _ in spec.things])
            self.assertEqual([t[2] for t in layout.things], sorted(t[2] for t in layout.things))
            for _, _, x, y, size, _ in layout.things:
                for at in (x, y):
                    self.assertGreaterEqual(at - size / 2, -0.06)
                    self.assertLessEqual(at + size / 2, 1.06)

    def test_seeds_give_different_drawings_places_and_sizes(self):
        sprites = {"cat": list(range(10))}
        layouts = [random_layout(np.random.default_rng(s), Spec((("cat", None),)), sprites) for s in range(200)]
        things = [l.things[0] for l in layouts]
        self.assertEqual({t[0] for t in things}, set(range(10)))
        self.assertEqual({t[5] for t in things}, {True, False})
        self.assertGreater(max(t[4] for t in things) - min(t[4] for t in things), 0.35)

    def test_every_scene_has_a_ground(self):
        self.assertEqual(list(_GROUNDS), SCENES)


class Shaped(unittest.TestCase):
    def test_a_thing_fills_the_outline_of_another_and_nothing_beyond(self):
        """The cat is a red square, every other noun a green disc."""
        y, x = np.mgrid[:128, :128] - 63.5
        planes = np.zeros((len(NOUNS), 8, 128, 128), np.uint8)
        planes[:, 7] = 255 * (x ** 2 + y ** 2 < 60 ** 2)
        planes[:, 1] = planes[:, 7]
        planes[NOUNS.index("cat"), [0, 7]], planes[NOUNS.index("cat"), 1] = 255, 0
        with tempfile.TemporaryDirectory() as state:
            names = json.dumps([(noun, noun, "test", 0) for noun in NOUNS])
            np.savez(os.path.join(state, "sprites.npz"), planes=planes, names=names)
            composer = Composer(state)
        rng = np.random.default_rng(0)
        composer.sprites_of = {noun: [NOUNS.index("dog")] for noun in NOUNS}
        layout = random_layout(rng, Spec((("cat", None),), "blue"), {"cat": [NOUNS.index("cat")]})
        got = composer.shaped(rng, [layout])[0].numpy()
        _, _, at_x, at_y, size, _ = layout.things[0]
        far = np.hypot(x / 128 + 0.5 - at_x, y / 128 + 0.5 - at_y) / (size * 60 / 128)
        for where, colour, inside in ((far < 0.95, (255, 0, 0), 255), (far > 1.05, COLOURS["blue"], 0)):
            self.assertTrue((got[:3, where] == np.array(colour)[:, None]).all())
            self.assertTrue((got[3, where] == inside).all())


if __name__ == "__main__":
    unittest.main()
