//! Weights of tokens, applied to what the text encoder made of them.

/// A1111's "Original": each row of `z` [tokens, width] times its weight, then all of it scaled so that its mean is
/// what it was.
pub fn original(z: &mut [f32], weights: &[f32]) {
    if weights.iter().all(|&w| w == 1.0) || weights.is_empty() {
        return;
    }
    let sum = |z: &[f32]| z.iter().map(|&v| f64::from(v)).sum::<f64>();
    let before = sum(z);
    for (row, weight) in z.chunks_exact_mut(z.len() / weights.len()).zip(weights) {
        row.iter_mut().for_each(|v| *v *= weight);
    }
    let scale = (before / sum(z)) as f32;
    z.iter_mut().for_each(|v| *v *= scale);
}

/// ComfyUI's: `(z - empty) * weight + empty` for each row of `z` [tokens, width], where `empty` is what the text
/// encoder makes of an empty prompt.
pub fn comfy(z: &mut [f32], empty: &[f32], weights: &[f32]) {
    if weights.is_empty() {
        return;
    }
    let width = z.len() / weights.len();
    for ((row, empty), &weight) in z.chunks_exact_mut(width).zip(empty.chunks_exact(width)).zip(weights) {
        if weight != 1.0 {
            row.iter_mut().zip(empty).for_each(|(v, e)| *v = (*v - e) * weight + e);
        }
    }
}
