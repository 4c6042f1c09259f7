"""A1111's options of inpainting, outpainting and hires fix: pictures by Pillow and OpenCV, loops by diffusers in f32.

    python tests/reference/pictures.py        # rewrites tests/reference/data/pictures/

`pixels.bin`: what Pillow and OpenCV make of a picture and a mask, named in `cases.json`; there too the latents of each
case with the embedded model. Picture and mask are formulas, the same in tests/pictures.rs and tests/web/tests/pictures.test.mjs.
Formulas of A1111 1.10: `modules/processing.py` (StableDiffusionProcessingImg2Img.init), `masking.py`, `sd_samplers_common.py`.
"""
import json, pathlib
import cv2, diffusers, numpy as np, torch
from PIL import Image, ImageFilter, ImageOps

ROOT = pathlib.Path(__file__).parents[2]
OUT = ROOT / "tests/reference/data/pictures"


def picture(w, h):
    y, x = np.mgrid[:h, :w]
    return Image.fromarray(np.stack([x * 4 & 255, y * 4 & 255, (x * y) & 255], -1).astype(np.uint8))


def mask(w, h):
    y, x = np.mgrid[:h, :w]
    return Image.fromarray((((x >= w // 3) & (x < w * 4 // 5) & (y >= h // 5) & (y < h * 2 // 3)) * 255).astype(np.uint8))


# ---- A1111, before the loop ------------------------------------------------------------------------------------------
def blur(m, sigma):
    size = 2 * int(2.5 * sigma + 0.5) + 1
    return Image.fromarray(cv2.GaussianBlur(cv2.GaussianBlur(np.array(m), (size, 1), sigma), (1, size), sigma))


def fill(image, m):
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(m))
    out = Image.new("RGBA", image.size)
    for radius, repeats in [(256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)]:
        blurred = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            out.alpha_composite(blurred)
    return out.convert("RGB")


def region(m, pad, width, height):
    x1, y1, x2, y2 = m.getbbox()
    x1, y1, x2, y2 = max(x1 - pad, 0), max(y1 - pad, 0), min(x2 + pad, m.width), min(y2 + pad, m.height)
    if (x2 - x1) / (y2 - y1) > width / height:
        y1, y2 = grown(y1, y2, (x2 - x1) / (width / height), m.height)
    else:
        x1, x2 = grown(x1, x2, (y2 - y1) * (width / height), m.width)
    return x1, y1, x2, y2


def grown(a, b, wanted, most):
    more = int(wanted - (b - a))
    a, b = a - more // 2, b + more - more // 2
    if b >= most:
        a, b = a - (b - most), most
    if a < 0:
        a, b = 0, b - a
    return a, min(b, most)


def prepared(k):
    """Picture and mask as the loop gets them."""
    image, size = picture(*k["picture"]), (k["options"]["width"], k["options"]["height"])
    o = k["options"]
    if "outpaint" in o:
        canvas, m = Image.new("RGB", size, "white"), Image.new("L", size, 255)
        at = (o["outpaint"].get("left", 0), o["outpaint"].get("top", 0))
        canvas.paste(image, at)
        m.paste(Image.new("L", image.size, 0), at)
        return fill(canvas, m), m
    if not k.get("mask"):
        return image, None
    m = mask(*k["picture"])
    if o.get("invertMask"):
        m = ImageOps.invert(m)
    if "maskBlur" in o:
        m = blur(m, o["maskBlur"])
    if o.get("inpaintArea") == "masked":
        box = region(m, o.get("maskPadding", 32), *size)
        image, m = (i.crop(box).resize(size, Image.LANCZOS) for i in (image, m))
    return (fill(image, m) if o.get("maskedContent") == "fill" else image), m


# ---- the loop --------------------------------------------------------------------------------------------------------
def case(picture=None, mask=False, width=64, height=64, **more):
    defaults = dict(prompt="a red apple", numInferenceSteps=5, guidanceScale=3, seed=7, width=width, height=height)
    return dict(picture=picture, mask=mask, options=defaults | more)


SQUARE, WIDE = (64, 64), (120, 88)
CASES = [
    case(SQUARE, True, strength=0.6, maskBlur=4),
    case(SQUARE, True, strength=0.6, maskBlur=2.5, invertMask=True),
    case(SQUARE, True, strength=0.8, maskedContent="fill", maskBlur=4),
    case(SQUARE, True, strength=0.8, maskedContent="noise"),
    case(SQUARE, True, strength=0.8, maskedContent="nothing", numImages=2),
    case(SQUARE, True, strength=1, maskedContent="original"),
    case(WIDE, True, strength=0.8, inpaintArea="masked", maskPadding=8, maskBlur=4),
    case(WIDE, True, strength=0.8, inpaintArea="masked", maskedContent="fill", width=48, height=72),
    case((40, 48), width=64, height=56, strength=0.8, outpaint=dict(left=8, right=16, bottom=8)),
    case((64, 48), strength=1, outpaint=dict(top=16), scheduler="euler_a"),
    case(SQUARE, strength=0.5, strengthSteps="a1111"),
    case(SQUARE, strength=0.5, strengthSteps="exact"),
    case(hires=dict(width=96, height=80)),
    case(hires=dict(scale=1.5, upscaler="latent-nearest", strength=0.5)),
    case(hires=dict(scale=2, upscaler="latent-bicubic", steps=4, strength=0.8), scheduler="euler_a"),
    case(hires=dict(width=104, height=96, upscaler="picture", strength=0.6), numImages=2),
]
SAMPLERS = {"euler_a": "EulerAncestralDiscrete"}


def with_content(pipe, content):
    """A1111's masked content under the noise, at every strength."""
    prepare = diffusers.StableDiffusionInpaintPipeline.prepare_latents

    def prepare_latents(*args, image=None, timestep=None, is_strength_max=None, **more):
        _, noise, latents = prepare(pipe, *args, image=image, timestep=timestep, is_strength_max=False, **more)
        under = {"noise": noise, "nothing": torch.zeros_like(noise)}.get(content, latents)
        m = torch.nn.functional.interpolate(with_content.mask, size=latents.shape[-2:])
        return pipe.scheduler.add_noise(latents * (1 - m) + under * m, noise, timestep), noise, latents

    pipe.prepare_latents = prepare_latents


def run(k, parts):
    o = k["options"]
    images = o.get("numImages", 1)
    steps, strength, exact = o["numInferenceSteps"], o.get("strength"), o.get("strengthSteps")
    if exact == "a1111":
        strength = (int(min(strength, 0.999) * steps) + 1) / steps + 1e-9
    elif exact == "exact":
        steps = int(steps / min(strength, 0.999))
    common = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)

    def call(cls, **more):
        pipe = cls(**parts, **common)
        pipe.set_progress_bar_config(disable=True)
        if "scheduler" in o:
            pipe.scheduler = getattr(diffusers, SAMPLERS[o["scheduler"]] + "Scheduler").from_config(parts["scheduler"].config)
        if "mask_image" in more and ("maskedContent" in o or "outpaint" in o):
            with_content.mask = (torch.from_numpy(np.array(more["mask_image"]))[None, None] / 255 >= 0.5).float()
            with_content(pipe, o.get("maskedContent"))
        given = dict(prompt=o["prompt"], guidance_scale=o["guidanceScale"], generator=torch.Generator("cpu").manual_seed(o["seed"]), output_type="latent")
        with torch.no_grad():
            return pipe(**(given | more)).images

    Text, Image2, Inpaint = diffusers.StableDiffusionPipeline, diffusers.StableDiffusionImg2ImgPipeline, diffusers.StableDiffusionInpaintPipeline
    if "hires" not in o:
        image, m = prepared(k)
        more = dict(mask_image=m, width=o["width"], height=o["height"]) if m else {}
        return call(Inpaint if m else Image2, image=image, strength=strength, num_inference_steps=steps, num_images_per_prompt=images, **more)
    hires = o["hires"]
    upscaler = hires.get("upscaler", "latent")
    size = [hires.get(side) or int(o[side] * hires["scale"]) // 8 * 8 for side in ("width", "height")]
    first = call(Text, width=o["width"], height=o["height"], num_inference_steps=steps, num_images_per_prompt=images, output_type="pil" if upscaler == "picture" else "latent")
    if upscaler == "picture":
        first = [i.resize(size, Image.LANCZOS) for i in first]
    else:
        mode = {"latent": "bilinear"}.get(upscaler, upscaler.removeprefix("latent-"))
        first = torch.nn.functional.interpolate(first, size=(size[1] // 8, size[0] // 8), mode=mode)
    return call(Image2, prompt=[o["prompt"]] * images, image=first, strength=hires.get("strength", 0.7), num_inference_steps=hires.get("steps", steps))


def pixel_cases():
    """Pictures and masks as Pillow and OpenCV make them of those of 48 x 40."""
    image, m = picture(48, 40), mask(48, 40)
    soft = blur(m, 4)
    return {
        "blur 4": soft,
        "blur 1.5": blur(m, 1.5),
        "fill": fill(image, m),
        "fill soft": fill(image, soft),
        "resize 61 90": image.resize((61, 90), Image.LANCZOS),
        "resize 25 17": image.resize((25, 17), Image.LANCZOS),
        "composite": Image.composite(ImageOps.invert(image), image, soft),
    }


def main():
    diffusers.utils.logging.set_verbosity_error()
    OUT.mkdir(parents=True, exist_ok=True)
    data, pixels = bytearray(), []
    for name, image in pixel_cases().items():
        pixels.append(dict(name=name, width=image.width, height=image.height, offset=len(data)))
        data += image.tobytes()
    (OUT / "pixels.bin").write_bytes(data)
    folder = str(ROOT / "www" / "embedded")
    parts = {k: v for k, v in diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32).components.items()
             if k in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    cases = []
    for k in CASES:
        latents = run(k, parts)
        print(k["options"], tuple(latents.shape), "std", round(float(latents.std()), 3), flush=True)
        cases.append(k | dict(latents=[round(float(v), 5) for v in latents.flatten()]))
    lines = ",\n".join(json.dumps(c) for c in cases)
    (OUT / "cases.json").write_text(f'{{"pixels": {json.dumps(pixels)},\n"cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
