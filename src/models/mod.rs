//! The networks of Stable Diffusion, as plain functions that record themselves: a `Config` read from
//! diffusers' `config.json`, and functions of it, a [`Recorder`](crate::gpu::Recorder) and tensors. Names are
//! those of diffusers and transformers, those of weights included (`down_blocks.0.resnets.0.conv1`, relative
//! to the component; CLIP's as [`checkpoint::names`](crate::checkpoint::names) has them).
//!
//! | file | class |
//! |---|---|
//! | [`clip`] | `CLIPTextModel`, `CLIPTextModelWithProjection` |
//! | [`bert`] | `BertModel` |
//! | [`text_encoder`] | either of these |
//! | [`clip_vision`] | `CLIPVisionModelWithProjection` |
//! | [`ip_adapter`] | `ImageProjection`, `IPAdapterPlusImageProjection` and others, `IPAdapterAttnProcessor` |
//! | [`unet`] | `UNet2DConditionModel` |
//! | [`controlnet`] | `ControlNetModel` |
//! | [`t2i_adapter`] | `T2IAdapter` |
//! | [`lllite`] | `ControlNetLLLite` of kohya-ss/sd-scripts |
//! | [`vae`] | `AutoencoderKL` |
//! | [`taesd`] | `AutoencoderTiny` (decoder) |
//! | [`rrdbnet`] | `RRDBNet` of ESRGAN and Real-ESRGAN |
//! | [`resnet`], [`transformer`] | the blocks that they are made of |
//! | [`config`] | reading and refusing configuration fields |
//!
//! Pictures are NHWC, token sequences `[n, 1, tokens, channels]`, vectors `[n, 1, 1, channels]`.

pub mod bert;
pub mod clip;
pub mod clip_vision;
pub mod config;
pub mod controlnet;
pub mod ip_adapter;
pub mod lllite;
pub mod resnet;
pub mod rrdbnet;
pub mod t2i_adapter;
pub mod taesd;
pub mod text_encoder;
pub mod transformer;
pub mod unet;
mod unet_config;
pub mod vae;
