//! UniPC (Zhao et al. 2023) in B(h) form, predicting pictures, as diffusers' `UniPCMultistepScheduler`: each step is
//! corrected with the prediction that the next one makes.

use super::config::SchedulerConfig;
use super::log_snr::{DataPredictionModel, Solver, solver_order};
use super::sampler::Sampler;
use super::setup::Setup;
use super::steps::Rule;
use crate::error::Result;

struct UniPc {
    model: DataPredictionModel,
    solver_order: usize,
    /// `solver_type` is "bh1".
    bh1: bool,
    lower_order_final: bool,
    /// Steps that are not corrected.
    disable_corrector: Vec<f32>,
    /// Predicted pictures of the steps so far, the newest first.
    x0s: Vec<Vec<f32>>,
    /// Where the step before started, and its order.
    last: Option<(Vec<f32>, usize)>,
}

pub(super) fn make(setup: &Setup) -> Result<Sampler> {
    let config = setup.config;
    let bh1 = match config.str("solver_type", "bh2")? {
        "bh1" => true,
        "bh2" | "midpoint" | "heun" | "logrho" => false,
        other => return Err(SchedulerConfig::refuse("solver_type", other)),
    };
    if !config.bool("predict_x0", true)? {
        return Err(SchedulerConfig::refuse("predict_x0", false));
    }
    let (model, levels) = DataPredictionModel::read(setup, true, Solver::UniPc)?;
    let rule = UniPc {
        bh1,
        solver_order: solver_order(config)?,
        // To end at no noise, a higher order would need the logarithm of zero.
        lower_order_final: config.bool("lower_order_final", true)? || model.sigmas.last() == Some(&0.0),
        disable_corrector: config.optional_list("disable_corrector")?.unwrap_or_default(),
        model,
        x0s: Vec::new(),
        last: None,
    };
    Ok(Sampler::stepwise(levels, rule))
}

impl UniPc {
    /// From `x` at level `i` on to the next, with the predictions of up to `order` steps; with `there`, the prediction
    /// at the end, corrected by it.
    fn update(&self, x: &[f32], i: usize, order: usize, there: Option<&[f32]>) -> Vec<f32> {
        let lambda = |j: usize| f64::from(self.model.parts(j).2);
        let (_, sigma_s, _) = self.model.parts(i);
        let (alpha_t, sigma_t, _) = self.model.parts(i + 1);
        let h = lambda(i + 1) - lambda(i);
        let phi_1 = (-h).exp_m1();
        let b_h = if self.bh1 { -h } else { phi_1 };
        let mut ratios: Vec<f64> = (1..order).map(|back| (lambda(i - back) - lambda(i)) / h).collect();
        if there.is_some() {
            ratios.push(1.0);
        }
        let weights = match (&ratios[..], there) {
            // The lowest orders' are fixed.
            (&[_], _) => vec![0.5],
            _ => self.weights(&ratios, h, b_h),
        };
        let m0 = &self.x0s[0];
        let (keep, to_m0) = (sigma_t / sigma_s, f64::from(alpha_t) * phi_1);
        let step = |k: usize| {
            let change = |j: usize| match (self.x0s.get(j + 1), there) {
                (Some(m), _) if j + 1 < order => f64::from(m[k] - m0[k]) / ratios[j],
                (_, Some(there)) => f64::from(there[k] - m0[k]),
                _ => 0.0,
            };
            let sum: f64 = weights.iter().enumerate().map(|(j, w)| w * change(j)).sum();
            // `b_h` is infinite at the end of bh1, where there is nothing to add.
            let residue = if weights.is_empty() { 0.0 } else { f64::from(alpha_t) * b_h * sum };
            (f64::from(keep * x[k]) - to_m0 * f64::from(m0[k]) - residue) as f32
        };
        (0..x.len()).map(step).collect()
    }

    /// The solution of the Vandermonde system in the ratios.
    fn weights(&self, ratios: &[f64], h: f64, b_h: f64) -> Vec<f64> {
        let n = ratios.len();
        let mut phi = (-h).exp_m1() / -h - 1.0;
        let mut factorial = 1.0;
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for power in 0..n {
            let mut row: Vec<f64> = ratios.iter().map(|r| r.powi(power as i32)).collect();
            row.push(phi * factorial / b_h);
            rows.push(row);
            factorial *= (power + 2) as f64;
            phi = phi / -h - 1.0 / factorial;
        }
        // Gauss' elimination; the first row is of ones, the others are its powers.
        for column in 0..n {
            let pivot = rows[column].clone();
            for (_, row) in rows.iter_mut().enumerate().filter(|&(i, _)| i != column) {
                let factor = row[column] / pivot[column];
                row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
            }
        }
        (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
    }
}

impl Rule for UniPc {
    fn step(
        &mut self,
        model_output: &[f32],
        i: usize,
        sample: &mut [f32],
        _: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Vec<f32>> {
        let steps = self.model.sigmas.len() - 1;
        let x0 = self.model.x0(i, model_output, sample);
        if let Some((start, order)) = self.last.take()
            && !self.disable_corrector.contains(&((i - 1) as f32))
        {
            sample.copy_from_slice(&self.update(&start, i - 1, order, Some(&x0)));
        }
        self.x0s.insert(0, x0.clone());
        self.x0s.truncate(self.solver_order);
        let ceiling = if self.lower_order_final { steps - i } else { self.solver_order };
        let order = self.x0s.len().min(ceiling);
        self.last = Some((sample.to_vec(), order));
        let next = self.update(sample, i, order, None);
        sample.copy_from_slice(&next);
        Ok(x0)
    }
}
