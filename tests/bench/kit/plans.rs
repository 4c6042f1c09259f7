//! Stable Diffusion 1.5's networks, recorded at their own size: two pictures, as with guidance.

use browser_diffusion::gpu::{Options, Plan, Recorder, Tensor};
use browser_diffusion::models::{clip, unet, vae};
use browser_diffusion::ops::autotune::Example;
use browser_diffusion::ops::{self, Conv, Epilogue};
use serde_json::{Value, json};

const PUBLISHED: &str = include_str!("../../reference/data/models/real.json");

/// A network's published configuration.
fn config(part: &str) -> Value {
    let mut all: Value = serde_json::from_str(PUBLISHED).unwrap();
    all[format!("sd15/{part}")]["config"].take()
}

/// A recorded network.
pub struct Recorded {
    pub plan: Plan,
    /// Of the UNet: latents, embedding of the timestep, text.
    pub inputs: Vec<Tensor>,
    pub output: Tensor,
}

pub fn unet(options: &Options, side: u32) -> Recorded {
    unet_of(&config("unet"), options, side)
}

/// One of its form with a tenth of its channels, at 8x8: what a test has time for.
pub fn small_unet(options: &Options) -> Recorded {
    let mut config = config("unet");
    config["block_out_channels"] = json!([32, 64, 128, 128]);
    unet_of(&config, options, 8)
}

fn unet_of(config: &Value, options: &Options, side: u32) -> Recorded {
    let config = unet::Config::from_config(config).unwrap();
    let mut r = Recorder::new(options);
    let inputs = unet::unet_inputs(&config, &mut r, 2, side, side, 77);
    let output = unet::forward(&config, &mut r, &inputs, &[]).unwrap();
    r.output(output);
    let inputs = vec![inputs.sample, inputs.t_emb, inputs.encoder_hidden_states];
    Recorded { plan: r.finish(), inputs, output }
}

pub fn decoder(options: &Options, side: u32) -> Recorded {
    let config = vae::Config::from_config(&config("vae")).unwrap();
    let mut r = Recorder::new(options);
    let latents = r.input(1, side, side, config.latent_channels);
    let output = vae::decode(&config, &mut r, latents).unwrap();
    r.output(output);
    Recorded { plan: r.finish(), inputs: vec![latents], output }
}

pub fn text_encoder(options: &Options) -> Plan {
    let config = clip::Config::from_config(&config("text_encoder")).unwrap();
    let mut r = Recorder::new(options);
    let ids = r.input_u32(2, 77);
    let states = clip::hidden_states(&config, &mut r, ids, None, config.num_hidden_layers).unwrap();
    let last = clip::final_layer_norm(&config, &mut r, *states.last().unwrap()).unwrap();
    r.output(last);
    r.finish()
}

/// A product or convolution that stands for its class, and what it reads.
pub fn product_and_input(options: &Options, (conv, side, c, out): Example) -> (Plan, Tensor) {
    let mut r = Recorder::new(options);
    let x = r.input(2, side, side, c);
    let y = match conv {
        true => ops::conv2d(&mut r, x, "y", out, Conv::k3(), Epilogue::default()).unwrap(),
        false => ops::linear(&mut r, x, "y", out, Epilogue::default()).unwrap(),
    };
    r.output(y);
    (r.finish(), x)
}

pub fn product(options: &Options, example: Example) -> Plan {
    product_and_input(options, example).0
}
