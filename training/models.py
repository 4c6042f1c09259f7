"""The architectures, and where their parts lie in STATE."""
import os

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "../www/embedded")
LATENTS, SIDE = 12, 16  # channels; latents are SIDE x SIDE
DIM, LENGTH, EOS = 128, 77, 49407  # of the text encoder
# No attention in the middle: a picture's parts are coded by themselves, so crops train what whole pictures need.
VAE = dict(in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
           up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(32, 64, 96, 128), layers_per_block=1,
           latent_channels=LATENTS, norm_num_groups=8, sample_size=128, act_fn="silu", scaling_factor=1.0,
           mid_block_add_attention=False)
# No attention at 16 x 16, where it would halve the speed on a CPU (22 pictures a second of a core for 44), and none in
# the middle, at 4 x 4, whose neighbours have it.
UNET = dict(sample_size=SIDE, in_channels=LATENTS, out_channels=LATENTS, block_out_channels=(64, 128, 192),
            layers_per_block=1, cross_attention_dim=DIM, attention_head_dim=4, norm_num_groups=32,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2D",
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))


def text_config():
    return CLIPTextConfig(vocab_size=49408, hidden_size=DIM, intermediate_size=4 * DIM, num_hidden_layers=3,
                          num_attention_heads=4, max_position_embeddings=LENGTH, projection_dim=DIM,
                          hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=EOS, pad_token_id=EOS)


def alphas_bar():
    """scaled_linear 0.00085..0.012, rescaled to zero terminal SNR."""
    b = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
    s = torch.cumprod(1 - b, 0).sqrt()
    s = (s - s[-1]) * s[0] / (s[0] - s[-1])
    return (s ** 2).float()


class Tokens:
    def __init__(self):
        self.tokenizer = CLIPTokenizer.from_pretrained(os.path.join(MODEL, "tokenizer"))

    def __call__(self, captions):
        return self.tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True,
                              return_tensors="pt")["input_ids"]


def _no_residuals(model, share=0.05):
    """Residual branches begin near zero."""
    for module in model.modules():
        if type(module).__name__ == "ResnetBlock2D":
            module.conv2.weight.mul_(share)
            module.conv2.bias.zero_()
            if module.conv_shortcut is not None:
                _eye(module.conv_shortcut)


def _eye(conv):
    """The centre of each kernel copies the channels that there are."""
    k = conv.kernel_size[0] // 2
    conv.weight.zero_()
    conv.bias.zero_()
    n = min(conv.in_channels, conv.out_channels)
    conv.weight[:n, :n, k, k] = torch.eye(n)


@torch.no_grad()
def fresh_vae(pictures):
    """An autoencoder that begins as principal components of 8 x 8 patches: the encoder's way down stacks the pixels
    of 2 x 2 squares into channels, twice, and projects them the third time; the decoder begins as plain
    enlargement. From a random start it stays grey for ten minutes. pictures: n x 3 x 128 x 128 in -1..1, to take
    the components from."""
    vae = AutoencoderKL(**VAE)
    e, d = vae.encoder, vae.decoder
    _no_residuals(vae)
    widths = VAE["block_out_channels"]
    components = widths[2]
    _eye(e.conv_in)
    stacked = 3
    for block in e.down_blocks[:2]:
        conv = block.downsamplers[0].conv
        conv.weight.mul_(0.02)
        conv.bias.zero_()
        for c in range(stacked):
            for r in range(2):
                for s in range(2):
                    conv.weight[4 * c + 2 * r + s] = 0
                    conv.weight[4 * c + 2 * r + s, c, r, s] = 1
        stacked *= 4
    # what reaches the third downsampler: 48 numbers for each 4 x 4 square; four squares make a patch
    x = torch.nn.functional.pixel_unshuffle(torch.nn.functional.pixel_unshuffle(pictures, 2), 2)
    n, _, h, w = x.shape
    patches = x.reshape(n, stacked, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 4 * stacked).double()
    mean = patches.mean(0)
    values, axes = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    axes = axes.flip(1)[:, :components] / values.flip(0)[:components].clamp_min(1e-4).sqrt()
    conv = e.down_blocks[2].downsamplers[0].conv
    conv.weight.zero_()
    conv.weight[:, :stacked, :2, :2] = axes.T.reshape(components, stacked, 2, 2).float()
    conv.bias.copy_(-(mean @ axes).float())
    # The last norm would take each component's size away. Constants of both signs beside them in every group keep
    # it: the components then pass the norm, and SiLU's upper arm, nearly unchanged.
    groups, constant, centre = VAE["norm_num_groups"], 8.0, 4.0
    each, own = widths[3] // groups, components // groups
    shortcut = e.down_blocks[3].resnets[0].conv_shortcut
    shortcut.weight.zero_()
    where = torch.arange(components) // own * each + torch.arange(components) % own
    shortcut.weight[where, torch.arange(components), 0, 0] = 1
    for g in range(groups):
        for k in range(own, each):
            shortcut.bias[g * each + k] = constant * (-1) ** k
    share = (each - own) / each
    e.conv_norm_out.weight.fill_((share * constant ** 2 + 1 - share) ** 0.5)
    e.conv_norm_out.bias.fill_(centre)
    e.conv_out.weight.zero_()
    e.conv_out.bias.fill_(-6.0)  # of the logarithm of the variance
    e.conv_out.bias[:LATENTS] = -centre
    e.conv_out.weight[torch.arange(LATENTS), where[:LATENTS], 1, 1] = 1
    _eye(vae.quant_conv)
    _eye(vae.post_quant_conv)
    for block in d.up_blocks[:3]:
        weight = block.upsamplers[0].conv.weight
        weight.mul_(0.1)
        weight[:, :, 1, 1] += torch.eye(len(weight))
        block.upsamplers[0].conv.bias.zero_()
    return vae


def load_vae(state, device="cpu"):
    """The running mean of the VAE's training, and of its decoder's, if that went on alone."""
    from training import load_averaged
    vae = load_averaged(AutoencoderKL(**VAE), os.path.join(state, "vae.pt"))
    decoder = os.path.join(state, "decoder.pt")
    if os.path.exists(decoder):
        load_averaged(vae, decoder)
    return vae.eval().to(device, memory_format=torch.channels_last)


def load_unet(state, device="cpu"):
    from training import load_averaged
    unet = load_averaged(UNet2DConditionModel(**UNET), os.path.join(state, "unet.pt"))
    return unet.eval().to(device, memory_format=torch.channels_last)


def load_text(state, device="cpu"):
    """The text encoder of STATE, else the committed one."""
    path = os.path.join(state, "text.pt")
    if os.path.exists(path):
        model, prefix = CLIPTextModel(text_config()), "text_model."
        saved = {k.removeprefix(prefix): v for k, v in torch.load(path, weights_only=True).items()}
        # releases of transformers differ in whether names have the prefix
        model.load_state_dict({k: saved[k.removeprefix(prefix)] for k in model.state_dict()})
    else:
        model = CLIPTextModel.from_pretrained(os.path.join(MODEL, "text_encoder"), torch_dtype=torch.float32)
    return model.eval().to(device)
