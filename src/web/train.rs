//! `Trainer` of `www/train.js`: a family of generative models that learns points in the plane, on the GPU or the CPU.

use super::options::{choice, count, floats, number};
use super::results::{array, set};
use crate::error::{Code, Error, Result};
use crate::gpu::{Gpu, GpuOptions};
use crate::train::gpu::Device;
use crate::train::{
    BATCH, Data, DataSet, Doodles, Family, Losses, Picture, Plan, STEPS, Trainer as Inner, doodles,
};
use js_sys::{Array, Float32Array, Object};
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// A family and what it has learnt.
#[wasm_bindgen]
pub struct Trainer {
    inner: Inner,
    /// Where it learns, if not on the CPU.
    device: Option<Device>,
}

#[wasm_bindgen]
impl Trainer {
    /// `spec`: `{ family, data, points, seed, steps, learningRate }`, `data` being a set's name, or else `points` a
    /// Float32Array of x and y in turn.
    pub fn create(spec: JsValue) -> Result<Trainer, JsValue> {
        let family: Family = choice(&spec, "family")?.ok_or_else(|| Error::invalid("Name a family."))?;
        let data = match choice::<DataSet>(&spec, "data")? {
            Some(set) => Data::named(set),
            None => Data::drawn(&floats(&spec, "points")?.unwrap_or_default())?,
        };
        Ok(Trainer { inner: Inner::new(family, data, plan(&spec, STEPS, family.rate())?), device: None })
    }

    /// Learns on the GPU from now on.
    pub async fn open(&mut self) -> Result<(), JsValue> {
        let gpu = Gpu::new(&GpuOptions::default()).await?;
        self.device = Some(self.inner.device(Rc::new(gpu)).await?);
        Ok(())
    }

    /// `{ parameters, batch, points, device }`: how many weights and biases, how many points a step sees, the data, and
    /// "gpu" or "cpu".
    pub fn about(&self) -> Object {
        let out = Object::new();
        set(&out, "parameters", self.inner.parameters().len() as f64);
        set(&out, "batch", BATCH as f64);
        set(&out, "points", array(self.inner.data().points.as_flattened()));
        set(&out, "device", self.device());
        out
    }

    fn device(&self) -> &'static str {
        if self.device.is_some() { "gpu" } else { "cpu" }
    }

    /// `{ step, losses, critic, device }`, `critic` being a GAN's discriminator's. A GPU that fails is let go: nothing was
    /// lost but this call's steps, which the CPU does.
    pub async fn train(&mut self, steps: u32) -> Result<Object, JsValue> {
        let steps = steps as usize;
        let on_gpu = match &self.device {
            Some(device) => self.inner.train_on(device, steps).await,
            None => self.inner.train(steps),
        };
        let losses = match on_gpu {
            Err(error) if self.device.is_some() && error.code != Code::InvalidOption => {
                self.device = None;
                self.inner.train(steps)?
            }
            result => result?,
        };
        let out = trained(self.inner.step(), &losses);
        set(&out, "device", self.device());
        Ok(out)
    }

    /// x and y in turn.
    pub fn samples(&mut self, count: u32, seed: u32) -> Float32Array {
        array(&self.inner.samples(count as usize, seed))
    }

    pub fn picture(&mut self, size: u32, time: f32) -> Object {
        let (kind, arrays) = match self.inner.picture(size as usize, time) {
            Picture::Arrows { from, to, points } => {
                ("arrows", vec![("from", from), ("to", to), ("points", points)])
            }
            Picture::Critic { field, grid } => ("critic", vec![("field", field), ("grid", grid)]),
            Picture::Ellipses { ellipses, grid } => {
                ("ellipses", vec![("ellipses", ellipses), ("grid", grid)])
            }
            Picture::Bent { grid } => ("bent", vec![("grid", grid)]),
        };
        let out = Object::new();
        set(&out, "kind", kind);
        set(&out, "size", size);
        for (name, values) in arrays {
            set(&out, name, array(&values));
        }
        out
    }

    /// `{ onData, modes }`, `modes` being `[hit, of]`, or null for drawn data.
    pub fn score(&mut self) -> Object {
        let score = self.inner.score();
        let out = Object::new();
        set(&out, "onData", score.on_data);
        let modes = score.modes.map(|(hit, of)| Array::of2(&(hit as f64).into(), &(of as f64).into()));
        set(&out, "modes", modes.map_or(JsValue::NULL, JsValue::from));
        out
    }

    pub fn reset(&mut self, seed: u32) {
        self.inner.reset(seed);
    }
}

/// A model of small pictures and what it has learnt.
#[wasm_bindgen]
pub struct DoodleTrainer {
    inner: Doodles,
}

#[wasm_bindgen]
impl DoodleTrainer {
    /// `spec`: `{ drawings, seed, steps, learningRate }`, `drawings` being a Float32Array of 256 values each.
    pub fn create(spec: JsValue) -> Result<DoodleTrainer, JsValue> {
        let drawings = floats(&spec, "drawings")?.unwrap_or_default();
        Ok(DoodleTrainer { inner: Doodles::new(&drawings, plan(&spec, doodles::STEPS, doodles::RATE)?)? })
    }

    /// `{ parameters }`
    pub fn about(&self) -> Object {
        let out = Object::new();
        set(&out, "parameters", self.inner.parameters().len() as f64);
        out
    }

    /// `{ step, losses }`
    pub fn train(&mut self, steps: u32) -> Result<Object, JsValue> {
        let losses = self.inner.train(steps as usize)?;
        Ok(trained(self.inner.step(), &losses))
    }

    /// Each `{ pixels, nearest, differs }`.
    pub fn samples(&mut self, seed: u32) -> Array {
        let samples = self.inner.samples(seed).into_iter().map(|sample| {
            let out = Object::new();
            set(&out, "pixels", array(&sample.pixels));
            set(&out, "nearest", sample.nearest as f64);
            set(&out, "differs", sample.differs);
            out
        });
        samples.collect()
    }
}

/// `{ seed, steps, learningRate }`; `usual` ones of a training, and the usual rate.
fn plan(spec: &JsValue, usual: usize, rate: f32) -> Result<Plan, JsValue> {
    Ok(Plan {
        seed: count(spec, "seed", f64::from(u32::MAX))?.unwrap_or(0.0) as u32,
        steps: count(spec, "steps", f64::from(u32::MAX))?.map_or(usual, |n| (n as usize).max(1)),
        rate: number(spec, "learningRate")?.map_or(rate, |rate| rate as f32),
    })
}

/// `{ step, losses, critic }`
fn trained(step: usize, losses: &Losses) -> Object {
    let out = Object::new();
    set(&out, "step", step as f64);
    set(&out, "losses", array(&losses.losses));
    if let Some(critic) = &losses.critic {
        set(&out, "critic", array(critic));
    }
    out
}
