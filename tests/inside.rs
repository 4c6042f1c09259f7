//! What steps show of the network, with the model that ships with the page: where it looks at a word, there the thing is.

use browser_diffusion::pipeline::{
    DiffusionPipeline, GenerateOptions, Inside, LoadOptions, Picture, Step, TokenKind, TokenMap, WordMaps,
};
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use std::rc::Rc;

/// The maps hardly change from one to the next.
const STEPS: usize = 3;
const GROUNDS: [&str; 4] = ["blue", "green", "pink", "yellow"];

fn load() -> DiffusionPipeline {
    let folder = Rc::new(Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded")));
    block_on(DiffusionPipeline::load(folder, None, &LoadOptions::default(), &|| false)).unwrap()
}

/// Forty of the model's nouns, spread over all of them.
fn nouns() -> Vec<String> {
    let all: Vec<String> = serde_json::from_str(include_str!("../www/embedded/concepts.json")).unwrap();
    (0..40).map(|i| all[i * all.len() / 40].clone()).collect()
}

/// How much of each latent is not of the ground's colour, which is that of most pixels at the border.
fn place(picture: &Picture, side: usize) -> Vec<f64> {
    let w = picture.width as usize;
    let pixel = |x: usize, y: usize| &picture.data[4 * (y * w + x)..][..3];
    let ground: Vec<u8> = (0..3)
        .map(|c| {
            let mut border: Vec<u8> = (0..w)
                .flat_map(|i| [pixel(i, 1)[c], pixel(i, w - 2)[c], pixel(1, i)[c], pixel(w - 2, i)[c]])
                .collect();
            border.sort_unstable();
            border[border.len() / 2]
        })
        .collect();
    let far = |x: usize, y: usize| {
        let sum: f64 = pixel(x, y).iter().zip(&ground).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        sum.min(90.0) / 90.0
    };
    let block = w / side;
    let places = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    let mean = |(x, y): (usize, usize)| {
        let inside = (0..block).flat_map(|dy| (0..block).map(move |dx| (dx, dy)));
        inside.map(|(dx, dy)| far(x * block + dx, y * block + dy)).sum::<f64>() / (block * block) as f64
    };
    places.map(mean).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - ma, y - mb)).sum::<f64>();
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}

#[test]
fn where_the_noun_is_looked_at_the_thing_is() {
    let pipeline = load();
    let mut found = Vec::new();
    for (i, noun) in nouns().into_iter().enumerate() {
        let options = GenerateOptions {
            prompt: format!("a {noun} on a {} background", GROUNDS[i % 4]),
            seed: 100 + i as u64,
            num_inference_steps: Some(STEPS),
            inside: Inside { attention: true, ..Default::default() },
            ..Default::default()
        };
        let mut maps: Vec<WordMaps> = Vec::new();
        let mut keep = |step: Step| {
            maps.extend(step.seen.and_then(|seen| seen.attention));
            Ok(())
        };
        let drawn = block_on(pipeline.generate(&options, &mut keep, &|| false)).unwrap();
        assert_eq!(maps.len(), STEPS);
        let side = maps[0].width as usize;
        let thing = place(&drawn.pictures[0], side);
        let mut each = Vec::new();
        let mut all = vec![0.0; side * side];
        for step in &maps {
            for at in 0..side * side {
                let sum: f32 = step.tokens.iter().map(|t| t.map[at]).sum();
                assert!((sum - 1.0).abs() <= 1e-3, "{sum}");
            }
            let words: Vec<&TokenMap> = step.tokens.iter().filter(|t| t.kind == TokenKind::Word).collect();
            let on = words.iter().position(|t| t.text.trim() == "on").unwrap();
            let map: Vec<f64> =
                (0..side * side).map(|at| words[1..on].iter().map(|t| f64::from(t.map[at])).sum()).collect();
            all.iter_mut().zip(&map).for_each(|(a, m)| *a += m);
            each.push(correlation(&map, &thing));
        }
        let mean = correlation(&all, &thing);
        println!("{noun}: {mean:.2} of the mean, {each:.2?} step by step");
        found.push((mean, noun));
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("{found:.2?}");
    // Of the model as it is now 0.75 to 0.95; one that is trained anew may have a few things with less sharp an edge.
    let agreeing = found.iter().filter(|(correlation, _)| *correlation >= 0.7).count();
    assert!(agreeing >= 36, "{agreeing} of {}", found.len());
}
