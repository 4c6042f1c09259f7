//! PNDM (Liu et al. 2022): linear multistep (PLMS), where `skip_prk_steps` is false after twelve
//! Runge-Kutta calls that cover the first three steps. As diffusers' `PNDMScheduler`.

use super::config::Prediction;
use super::config::SchedulerConfig;
use super::levels::Levels;
use super::numeric::{sigma, zip};
use super::sampler::Sampler;
use super::schedule::{DEFAULTS, Defaults, Training, pred_original_sample};
use super::setup::Setup;
use super::steps::Rule;
use crate::error::{Error, Result};

struct Pndm {
    training: Training,
    final_alpha: f32,
    /// Training timesteps between two steps.
    stride: i64,
    steps: Vec<i64>,
    /// How many of the calls are Runge-Kutta's.
    prk: usize,
    /// Calls done.
    counter: usize,
    /// The last four outputs that count for the multistep rule.
    ets: Vec<Vec<f32>>,
    /// Weighted sum of a Runge-Kutta step's outputs so far.
    sum: Vec<f32>,
    /// The sample from which the step under way started.
    cur_sample: Vec<f32>,
}

pub(super) fn make(setup: &Setup) -> Result<Sampler> {
    let (config, n) = (setup.config, setup.steps);
    let training = Training::read(config, n, &Defaults { zero_snr: false, ..DEFAULTS })?;
    if training.prediction_type == Prediction::Sample {
        return Err(SchedulerConfig::refuse("prediction_type", "sample, for PNDM,"));
    }
    let stride = training.num_train_timesteps / n;
    let falling = training.timesteps(n);
    let mut steps = Vec::new();
    let mut prk = 0;
    if config.bool("skip_prk_steps", false)? {
        // The second timestep is evaluated twice.
        for (i, &t) in falling.iter().enumerate() {
            steps.push(t);
            if i == 1 {
                steps.push(t);
            }
        }
    } else {
        let [first, second, third, fourth, ..] = falling[..] else {
            return Err(Error::invalid(format!(
                "`numInferenceSteps` is {n}; this checkpoint's PNDM needs at least 4 (its `skip_prk_steps` is \
                 false), or choose another `scheduler`"
            )));
        };
        let half = (stride / 2) as i64;
        for (from, to) in [(first, second), (second, third), (third, fourth)] {
            steps.extend([from, to + half, to + half, to]);
        }
        prk = steps.len();
        steps.extend(&falling[3..]);
    }
    training.check_range(&steps)?;
    let sigmas =
        steps.iter().map(|&t| Ok(sigma(training.alpha(t, 1.0)?))).chain([Ok(0.0)]).collect::<Result<_>>()?;
    let levels = Levels::preserving(steps.iter().map(|&t| t as f32).collect(), sigmas);
    let rule = Pndm {
        final_alpha: training.final_alpha(config.bool("set_alpha_to_one", false)?),
        training,
        stride: stride as i64,
        steps,
        prk,
        counter: 0,
        ets: Vec::new(),
        sum: Vec::new(),
        cur_sample: Vec::new(),
    };
    Ok(Sampler::stepwise(levels, rule))
}

impl Pndm {
    /// One Runge-Kutta call: from where to where, and with which output, starting at `cur_sample`.
    fn prk(&mut self, model_output: &[f32], i: usize, sample: &[f32]) -> (i64, i64, Vec<f32>) {
        let prev = self.steps[i] - if self.counter.is_multiple_of(2) { self.stride / 2 } else { 0 };
        let from = self.steps[self.counter / 4 * 4];
        let output = match self.counter % 4 {
            0 => {
                self.sum = model_output.iter().map(|m| 1.0 / 6.0 * m).collect();
                self.ets.push(model_output.to_vec());
                self.cur_sample = sample.to_vec();
                model_output.to_vec()
            }
            3 => zip(&self.sum, model_output, |s, m| s + 1.0 / 6.0 * m),
            _ => {
                self.sum = zip(&self.sum, model_output, |s, m| s + 1.0 / 3.0 * m);
                model_output.to_vec()
            }
        };
        (from, prev, output)
    }

    /// One multistep call, likewise.
    fn plms(&mut self, model_output: &[f32], i: usize, sample: &[f32]) -> (i64, i64, Vec<f32>) {
        let t = self.steps[i];
        if self.prk == 0 && self.counter == 1 {
            // The first step again, with the mean of the outputs at its two ends.
            let first = self.ets.last().map_or(model_output, Vec::as_slice);
            return (t + self.stride, t, zip(model_output, first, |m, e| (m + e) / 2.0));
        }
        self.cur_sample = sample.to_vec();
        if self.ets.len() == 4 {
            self.ets.remove(0);
        }
        self.ets.push(model_output.to_vec());
        let output = match &self.ets[..] {
            [e1, e0] => zip(e0, e1, |e0, e1| (3.0 * e0 - e1) / 2.0),
            [e2, e1, e0] => {
                let newer = zip(e0, e1, |e0, e1| 23.0 * e0 - 16.0 * e1);
                zip(&newer, e2, |n, e2| (n + 5.0 * e2) / 12.0)
            }
            [e3, e2, e1, e0] => {
                let newer = zip(e0, e1, |e0, e1| 55.0 * e0 - 59.0 * e1);
                let newer = zip(&newer, e2, |n, e2| n + 37.0 * e2);
                zip(&newer, e3, |n, e3| 1.0 / 24.0 * (n - 9.0 * e3))
            }
            _ => model_output.to_vec(),
        };
        (t, t - self.stride, output)
    }
}

impl Rule for Pndm {
    fn step(
        &mut self,
        model_output: &[f32],
        i: usize,
        sample: &mut [f32],
        _: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
        let p = self.training.prediction_type;
        let x0 = pred_original_sample(p, self.training.alpha(self.steps[i], 1.0)?, model_output, sample);
        let (from, to, output) = if self.counter < self.prk {
            self.prk(model_output, i, sample)
        } else {
            self.plms(model_output, i, sample)
        };
        self.counter += 1;

        // Formula 9 of the paper.
        let alpha = self.training.alpha(from, self.final_alpha)?;
        let alpha_prev = self.training.alpha(to, self.final_alpha)?;
        let (beta, beta_prev) = (1.0 - alpha, 1.0 - alpha_prev);
        let sample_coeff = (alpha_prev / alpha).sqrt();
        let denominator = alpha * beta_prev.sqrt() + (alpha * beta * alpha_prev).sqrt();
        for ((x, &start), m) in sample.iter_mut().zip(&self.cur_sample).zip(output) {
            let epsilon = match p {
                Prediction::Velocity => alpha.sqrt() * m + beta.sqrt() * start,
                _ => m,
            };
            *x = sample_coeff * start - (alpha_prev - alpha) * epsilon / denominator;
        }
        Ok(x0)
    }
}
