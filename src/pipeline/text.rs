//! Prompts to conditioning.

use super::residence::Stage;
use super::{DiffusionPipeline, Kind, TextEncoder};
use crate::error::{Error, Result};
use crate::gpu::{Recorder, Tensor};
use crate::models::clip;

/// What the UNet is told of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conditioning {
    /// `encoder_hidden_states`, [tokens, cross_attention_dim].
    pub embeds: Vec<f32>,
    /// SDXL's pooled embedding; empty otherwise.
    pub pooled: Vec<f32>,
}

/// Inputs and outputs of a recorded text encoder.
pub(super) struct Encoder {
    ids: Tensor,
    eos: Option<Tensor>,
    embeds: Tensor,
    pooled: Option<Tensor>,
}

/// Records a text encoder over [batch, tokens]: SD conditions on the last hidden state after its norm, SDXL on
/// `hidden_states[-2]`, and its second encoder gives the pooled embedding as well.
pub(super) fn record(
    config: &clip::Config,
    pooled: bool,
    penultimate: bool,
    r: &mut Recorder,
    batch: u32,
    tokens: u32,
) -> Result<Encoder> {
    let ids = r.input_u32(batch, tokens);
    let layers = config.num_hidden_layers;
    let states =
        clip::hidden_states(config, r, ids, if penultimate && !pooled { layers - 1 } else { layers })?;
    let missing = || Error::unsupported("num_hidden_layers = 0 of the text encoder");
    let mut eos = None;
    let mut pooled_output = None;
    let embeds = if penultimate {
        *states.get((layers as usize).checked_sub(1).ok_or_else(missing)?).ok_or_else(missing)?
    } else {
        clip::final_layer_norm(config, r, *states.last().ok_or_else(missing)?)?
    };
    r.output(embeds);
    if pooled {
        let index = r.input_u32(batch, 1);
        let last = clip::final_layer_norm(config, r, *states.last().ok_or_else(missing)?)?;
        let row = clip::pooler_output(r, last, index)?;
        let out = clip::text_embeds(config, r, row)?;
        r.output(out);
        eos = Some(index);
        pooled_output = Some(out);
    }
    Ok(Encoder { ids, eos, embeds, pooled: pooled_output })
}

impl DiffusionPipeline {
    /// Conditioning of each prompt, and the end of each that did not fit into the text encoder's window.
    ///
    /// # Errors
    /// `device-lost`, `out-of-memory`.
    pub(super) async fn encode_prompts(&self, prompts: &[&str]) -> Result<(Vec<Conditioning>, Vec<String>)> {
        self.bring(Stage::Text, &|| false).await?;
        let mut truncated = Vec::new();
        let sdxl = self.model.kind == Kind::Sdxl;
        // Rows of each encoder: [prompt][token][channel].
        let mut parts: Vec<(Vec<f32>, usize)> = Vec::new();
        let mut pooled = Vec::new();
        for (i, encoder) in self.text_encoders.iter().enumerate() {
            let mut ids = Vec::new();
            let mut eos = Vec::new();
            for prompt in prompts {
                let tokens = encoder.tokenizer.encode(prompt)?;
                if i == 0 {
                    truncated.extend(tokens.truncated);
                }
                eos.push(encoder.module.config.eos_index(&tokens.ids));
                ids.extend(tokens.ids);
            }
            if let Some(id) = ids.iter().find(|&&id| id >= encoder.module.config.vocab_size) {
                return Err(Error::bad_checkpoint(format!(
                    "the tokenizer makes token {id}, and the text encoder knows {}. They are not of one model",
                    encoder.module.config.vocab_size
                )));
            }
            let (embeds, pooled_output) = self.run_encoder(encoder, &ids, &eos, sdxl && i == 1, sdxl).await?;
            parts.push((embeds, encoder.module.config.hidden_size as usize));
            pooled = pooled_output;
        }
        let tokens = self.tokens();
        let conditioning = (0..prompts.len())
            .map(|p| {
                let mut embeds = Vec::new();
                for t in p * tokens..(p + 1) * tokens {
                    for (rows, width) in &parts {
                        embeds.extend_from_slice(&rows[t * width..(t + 1) * width]);
                    }
                }
                let width = pooled.len() / prompts.len();
                Conditioning { embeds, pooled: pooled[p * width..(p + 1) * width].to_vec() }
            })
            .collect();
        Ok((conditioning, truncated))
    }

    /// Tokens of every encoded prompt.
    pub(super) fn tokens(&self) -> usize {
        self.text_encoders.iter().map(|e| e.tokenizer.model_max_length()).min().unwrap_or(0)
    }

    async fn run_encoder(
        &self,
        encoder: &TextEncoder,
        ids: &[u32],
        eos: &[u32],
        pooled: bool,
        penultimate: bool,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let module = &encoder.module;
        let mut r = Recorder::new(&module.options);
        let batch = eos.len() as u32;
        let io = record(&module.config, pooled, penultimate, &mut r, batch, ids.len() as u32 / batch)?;
        let executable = r.finish().instantiate(&self.gpu, &*module.part.weights()?)?;
        executable.write_u32(&self.gpu, io.ids, ids)?;
        if let Some(t) = io.eos {
            executable.write_u32(&self.gpu, t, eos)?;
        }
        executable.run(&self.gpu);
        let embeds = executable.read(&self.gpu, io.embeds).await?;
        let pooled = match io.pooled {
            Some(t) => executable.read(&self.gpu, t).await?,
            None => Vec::new(),
        };
        Ok((embeds, pooled))
    }
}
