//! Soft lines on the GPU against the same in f64 on the CPU, with the two Gaussians over the plane at once.

use browser_diffusion::gpu::{Gpu, GpuOptions};
use browser_diffusion::ops::softedge;
use pollster::block_on;

/// Bands of red, blue that slopes, and green that is noise at the right.
fn picture(w: i64, h: i64) -> Vec<u8> {
    let places = (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
    let colours = |(x, y): (i64, i64)| {
        let band = if ((x - 20).abs() + (y - 9).abs()) / 16 % 2 == 0 { 40 } else { 210 };
        let noise = if x * 4 < w * 3 { 128 } else { ((x * 73856093) ^ (y * 19349663)) >> 4 };
        [band, noise, x * 255 / w, 255].map(|c| (c & 255) as u8)
    };
    places.flat_map(colours).collect()
}

/// 0 to 255, not yet rounded.
fn expected(rgba: &[u8], [w, h]: [i64; 2]) -> Vec<f64> {
    let sigma = (1.4 * w.min(h) as f64 / 512.0).max(0.5);
    let radius = (3.0 * 1.6 * sigma).ceil() as i64;
    let gaussian = |x: i64, y: i64, c: usize, sigma: f64| {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (dy, dx) in (-radius..=radius).flat_map(|dy| (-radius..=radius).map(move |dx| (dy, dx))) {
            let weight = (-((dx * dx + dy * dy) as f64) / (2.0 * sigma * sigma)).exp();
            let at = (y + dy).clamp(0, h - 1) * w + (x + dx).clamp(0, w - 1);
            sum += weight * f64::from(rgba[4 * at as usize + c]) / 255.0;
            weights += weight;
        }
        sum / weights
    };
    let places = (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
    let line = |(x, y)| {
        let darker = |c| gaussian(x, y, c, sigma) - gaussian(x, y, c, 1.6 * sigma);
        let darkest = (0..3).map(darker).fold(f64::INFINITY, f64::min);
        if darkest < -0.01 { 255.0 * -(40.0 * (darkest + 0.01)).tanh() } else { 0.0 }
    };
    places.map(line).collect()
}

#[test]
fn is_what_f64_says() {
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    for [w, h] in [[64, 48], [33, 17], [900, 520], [1, 1], [5, 1]] {
        // Of the largest a part.
        let rgba = picture(w, h);
        let found = block_on(softedge(&gpu, &rgba, w as u32)).unwrap();
        assert_eq!(found.len(), (w * h) as usize);
        let all = w < 100;
        let wanted = if all { expected(&rgba, [w, h]) } else { Vec::new() };
        let worst = found.iter().zip(&wanted).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
        let white = found.iter().filter(|&&line| line > 127).count();
        println!("{w}x{h}: {white} pixels of lines, off by {worst:.3}");
        // Half of a step is rounding. The blurs are off by 4e-6 at most (f32's sums of up to 11 x 2 terms, exp to 7
        // units), which 255 * 40 makes 0.04 of.
        assert!(worst <= 0.55, "{w}x{h}: {worst}");
        assert!(w < 30 || (white > 0 && white * 2 < found.len()), "{w}x{h}: {white}");
    }
    // A picture of one colour has no lines, whatever the colour.
    for colour in [0, 90, 255] {
        let lines = block_on(softedge(&gpu, &[colour; 4 * 40 * 30], 40)).unwrap();
        assert!(lines.iter().all(|&line| line == 0), "{colour}");
    }
    assert!(block_on(softedge(&gpu, &[], 0)).unwrap().is_empty());
}
