// Names of ControlNets' tensors in files of the original code.

const RESNET = {
  norm1: 'in_layers.0',
  conv1: 'in_layers.2',
  time_emb_proj: 'emb_layers.1',
  norm2: 'out_layers.0',
  conv2: 'out_layers.3',
  conv_shortcut: 'skip_connection',
};

/** A ControlNet's name of a tensor in lllyasviel's files, of two blocks with two layers each. @param {string} name */
export function original(name) {
  const block = (/** @type {string} */ b, /** @type {string} */ l) => 1 + 3 * Number(b) + Number(l);
  return name
    .replace(/^conv_in\./, 'input_blocks.0.0.')
    .replace(/^time_embedding\.linear_(\d)/, (_, n) => `time_embed.${2 * n - 2}`)
    .replace(/^add_embedding\.linear_(\d)/, (_, n) => `label_emb.0.${2 * n - 2}`)
    .replace(/^down_blocks\.(\d)\.downsamplers\.0\.conv/, (_, b) => `input_blocks.${block(b, '2')}.0.op`)
    .replace(/^down_blocks\.(\d)\.resnets\.(\d)/, (_, b, l) => `input_blocks.${block(b, l)}.0`)
    .replace(/^down_blocks\.(\d)\.attentions\.(\d)/, (_, b, l) => `input_blocks.${block(b, l)}.1`)
    .replace(/^mid_block\.resnets\.(\d)/, (_, n) => `middle_block.${2 * n}`)
    .replace(/^mid_block\.attentions\.0/, 'middle_block.1')
    .replace(/^controlnet_down_blocks\.(\d)/, 'zero_convs.$1.0')
    .replace(/^controlnet_mid_block/, 'middle_block_out.0')
    .replace(/^controlnet_cond_embedding\.conv_in/, 'input_hint_block.0')
    .replace(/^controlnet_cond_embedding\.conv_out/, 'input_hint_block.14')
    .replace(/^controlnet_cond_embedding\.blocks\.(\d)/, (_, n) => `input_hint_block.${2 * n + 2}`)
    .replace(/(?<=block.*\.)(norm1|conv1|time_emb_proj|norm2|conv2|conv_shortcut)(?=\.(weight|bias|up|down)$)/, layer =>
      name.includes('resnets') ? RESNET[/** @type {keyof typeof RESNET} */ (layer)] : layer,
    );
}
