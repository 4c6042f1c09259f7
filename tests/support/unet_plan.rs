//! The plan of a published UNet, recorded.

use browser_diffusion::gpu::{Options, Plan, Recorder};
use browser_diffusion::models::unet;
use serde_json::Value;

/// The UNet of a published configuration over `batch` pictures of `height` x `width` latents.
pub fn unet(config: &Value, options: &Options, batch: u32, height: u32, width: u32) -> Plan {
    let config = unet::Config::from_config(config).unwrap();
    let mut r = Recorder::new(options);
    let inputs = unet::Inputs {
        sample: r.input(batch, height, width, config.in_channels),
        t_emb: r.input(batch, 1, 1, config.time_proj_dim),
        encoder_hidden_states: r.input(batch, 1, 77, config.cross_attention_dim),
        added: config.text_time.map(|t| {
            let time = 6 * t.addition_time_embed_dim;
            let text_embeds = r.input(batch, 1, 1, t.projection_class_embeddings_input_dim - time);
            unet::AddedCond { text_embeds, time_ids: r.input(batch, 1, 1, time) }
        }),
        timestep_cond: None,
        features: Vec::new(),
    };
    let out = unet::forward(&config, &mut r, &inputs, &[]).unwrap();
    r.output(out);
    r.finish()
}
