"""Captions and layouts say and show what the spec says.

usage: python -m unittest training/test_compose.py     no weights and no sprites needed
"""
import os
import sys
import unittest

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from compose import _GROUNDS, KINDS, ZH, Spec, caption, caption_zh, random_layout, random_spec
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


if __name__ == "__main__":
    unittest.main()
