"""Expected values for tests/prompt_syntax.rs, from AUTOMATIC1111's own parser (version 1.10).

    python tests/reference/grammar.py FOLDER     # rewrites tests/reference/data/grammar.json; needs lark==1.1.2, as A1111 does

FOLDER holds `prompt_parser.py`: of stable-diffusion-webui's `modules/prompt_parser.py` the functions that parse, with
`re_extra_net`'s `parse_prompt` of `modules/extra_networks.py` beside them. It is not ours to pass on.

Its documented examples, edges, 400 generated prompts: for each the networks taken out, the parts between AND with
their weights, of each part the texts with their last step, of each text the pieces. Weights as text: exact.

Where unbalanced brackets leave lark more than one reading it takes one by the order of Python's hashes: A1111 gives now
this, now that. Each table is computed under eight hash seeds, and prompts on which they differ are left out.
"""
import json, os, pathlib, random, subprocess, sys

sys.path.insert(0, sys.argv[1])
from prompt_parser import get_learned_conditioning_prompt_schedules, parse_prompt_attention, parse_prompt, re_AND, re_weight

OUT = pathlib.Path(__file__).parent / "data" / "grammar.json"

DOCUMENTED = [
    "test", "a [b:3]", "a [b: 3]", "a [[[b]]:2]", "[(a:2):3]", "a [b : c : 1] d", "a[b:[c:d:2]:1]e", "a [unbalanced", "a [b:.5] c", "a [{b|d{:.5] c",
    "((a][:b:c [d:3]", "[a|(b:1.1)]", "[fe|]male", "[fe|||]male", "a [b:1.5] c",
    "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][: in background:0.25] [shoddy:masterful:0.5]",
    "normal text", "an (important) word", "(unbalanced", "\\(literal\\]", "(unnecessary)(parens)", "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
    "a cat AND a dog", "a cat :1.2 AND a dog AND a penguin :2.2", "a cow BREAK a horse",
]
EDGES = [
    "(red:0.5) AND blue:-0.4", "a <lora:foo:0.7> b <lora:bar>", "<lora:x:0.5:0.3> c < d > <:e> <f:>", "AND", "BANDANA AND", "", "(a BREAK b)", "BREAKS BREAK BREAK",
    "[a:b:3]:4]", "[[a:3]:4]", "[a|b:3]", "[a|b|]", "[a:b|c:3]", "[a:(b:3):4]", "(a:[b:3])", "[a:[b|c]:3]", "x | y [a:3]", "[a:3", "[[a:3]", "[a[b:3]",
    "[a:b:c:3] [d:4]", "[x [a:b:c:3] y:5]", "[ :3]", "[:3]", "[::3]", "[3:4]", "[:3:4]", "[a:b:3 ]", "[a: :3]", "[a: 3 ]", "[a:1e0]", "[a:-2]",
    "[a:+2.]", "[a:.5][b:0.5]", "((a:3)", "(a:3", "a\\", "\\[a:3]", "[a\\:3:2]", "[a:3)", "([a:3)]", "[a:b:c|d]", "[a|b:c|d:2]", "[(a|b):3]", "(a|b)",
    "[[a|b]|c]", "[a:[b:2]", "[a]:3]", "[a:b]:3]", "[a:b:3][", "][a:3]", "[(:a:3]", ":[a:3]", "[a::0.3]", "[a:12]", "[a:0]", "[a:b:0.05]", "[|]",
    "[a|b][c|d|e]", "[(a|b:c:3]", "[a [b:3]", "[a(b:3]", "[a)b:3]", "(a) [b:2] (c", "[a:b (c:1.2) d:4]", "\n[a:3]\n", "[a:\\n:3]",
]


def generated(rng):
    words = "a red cat dog, sitting on the mat. blue sky 4k über 猫 BREAK AND x".split()

    def phrase(depth):
        text = " ".join(rng.choice(words) for _ in range(rng.randint(0, 3)))
        if depth <= 0 or rng.random() < 0.3:
            return text
        i = lambda: phrase(depth - 1)
        number = rng.choice(["3", "5", "0.5", ".25", "10", "1.0", "0", "12", "-1", "2.", " 4", "7 ", "1e0"])
        weight = rng.choice(["1.2", "0.5", "1.1", ".9", "-1", "2", "1.3 ", " 0.8", "1."])
        return rng.choice([
            lambda: f"({i()})", lambda: f"[{i()}]", lambda: f"({i()}:{weight})", lambda: f"[{i()}:{i()}:{number}]", lambda: f"[{i()}:{number}]",
            lambda: f"[{i()}::{number}]", lambda: f"[{i()}|{i()}]", lambda: f"[{i()}|{i()}|{i()}]", lambda: f"{i()} {i()}", lambda: f"{i()}, {i()}", lambda: f"{i()}{i()}",
            lambda: f"{i()} AND {i()}", lambda: f"{i()}:{weight} AND {i()}", lambda: f"{i()} BREAK {i()}", lambda: f"{i()}<lora:{rng.choice('ab')}:{weight.strip()}>",
            lambda: f"{i()}\n{i()}", lambda: "\\" + rng.choice("()[]\\:|n") + i(), lambda: f"{i()}{rng.choice('()[]:')}{i()}", lambda: f"{i()} {rng.choice('()[]:|')} {i()}",
        ])()

    out = []
    while len(out) < 320:
        text = phrase(4)
        if 3 < len(text) < 220 and text not in out:
            out.append(text)
    while len(out) < 400:  # anything
        text = "".join(rng.choice([*"ab :[]()|,. \\35", "AND", "BREAK", ":3]", ":1.2)", "[a"]) for _ in range(rng.randint(3, 22)))
        if text not in out:
            out.append(text)
    return out


def table(prompt, steps):
    text, networks = parse_prompt(prompt)
    parts = []
    for part in re_AND.split(text):
        part, weight = re_weight.search(part).groups()
        schedule = get_learned_conditioning_prompt_schedules([part], steps)[0]
        parts.append(dict(schedule=[[end, text, [[t, repr(float(w))] for t, w in parse_prompt_attention(text)]] for end, text in schedule],
                          weight=repr(float(weight)) if weight is not None else "1.0"))
    return dict(networks=[[kind, n.items] for kind, found in networks.items() for n in found], parts=parts, prompt=prompt, steps=steps)


def tables():
    for i, prompt in enumerate(DOCUMENTED + EDGES + generated(random.Random(5))):
        try:
            yield table(prompt, [10, 20, 7][i % 3])
        except (ValueError, OverflowError):
            yield None  # A1111 itself fails


def main():
    if "--one" in sys.argv:
        return print(json.dumps(list(tables())))
    runs = [json.loads(subprocess.run([sys.executable, __file__, sys.argv[1], "--one"], env=os.environ | {"PYTHONHASHSEED": str(seed)},
                                      capture_output=True, check=True).stdout) for seed in range(8)]
    cases = [of_one[0] for of_one in zip(*runs) if of_one[0] and all(t == of_one[0] for t in of_one)]
    OUT.write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(len(cases), "of", len(runs[0]))


main()
