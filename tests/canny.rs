//! Canny's edges on the GPU against OpenCV's (`tests/reference/canny.py`), pixel by pixel.

use browser_diffusion::gpu::{Gpu, GpuOptions};
use browser_diffusion::ops::canny;
use pollster::block_on;
use serde_json::Value;

/// `picture` of canny.py, RGBA.
fn picture(kind: &str, w: i64, h: i64) -> Vec<u8> {
    let noise = |x: i64, y: i64| ((x * 73856093) ^ (y * 19349663)) & 0xffff;
    let colours = |x: i64, y: i64| match kind {
        "rings" => {
            [(x * x + 3 * y * y) / 40, (2 * (x - w) * (x - w) + y * y) / 60, (x * y) / 9].map(|c| c % 256)
        }
        "noise" => {
            let near = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy)));
            let sum: i64 = near.map(|(dx, dy)| noise((x - dx).rem_euclid(w), (y - dy).rem_euclid(h))).sum();
            [4, 6, 8].map(|s| (sum >> s) & 0xff)
        }
        "snake" => {
            let inside = y % 8 < 3 && x >= 2 && x < w - 2;
            let turn = if y / 8 % 2 == 0 { x >= w - 5 && x < w - 2 } else { (2..5).contains(&x) };
            let line = inside || y % 8 >= 3 && turn;
            let strong = y < 3 && (2..6).contains(&x);
            [100 + 30 * i64::from(line) + 120 * i64::from(strong); 3]
        }
        _ => [(x / 5 * 37 + y / 7 * 59) % 256, (x / 6 * 91) % 256, (y / 4 * 13 + x / 11 * 201) % 256],
    };
    let places = (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
    places.flat_map(|(x, y)| colours(x, y).into_iter().chain([255]).map(|c| c as u8)).collect()
}

#[test]
fn is_what_opencv_finds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/canny.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let gpu = block_on(Gpu::new(&GpuOptions::default())).unwrap();
    for case in &cases {
        let kind = case["kind"].as_str().unwrap();
        let [w, h, low, high] = ["width", "height", "low", "high"].map(|key| case[key].as_f64().unwrap());
        let rgba = picture(kind, w as i64, h as i64);
        let edges = block_on(canny(&gpu, &rgba, w as u32, low, high)).unwrap();
        let hex = case["edges"].as_str().unwrap();
        let bit = |i: usize| {
            let byte = u8::from_str_radix(&hex[i / 8 * 2..][..2], 16).unwrap();
            byte >> (7 - i % 8) & 1 == 1
        };
        assert_eq!(edges.len(), (w * h) as usize);
        let wrong = edges.iter().enumerate().filter(|(i, edge)| **edge != bit(*i)).count();
        let found = edges.iter().filter(|edge| **edge).count();
        println!("{kind} {w}x{h} {low} {high}: {found} edges, {wrong} pixels differ");
        assert_eq!(wrong, 0, "{kind} {w}x{h} {low} {high}");
    }
}
